"""A monitor that is killed with SIGKILL at a given boundary of a step: a program of its own.

python -m tests.lab.mortal BOUNDARY

The boundaries are numbered as they come: after each commit by which a migration has changed, before each order to the
engine and after it. It takes its settings from the environment, as `skyctl monitor` does.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from skyctl import settings, wiring
from skyctl.domain.engine import Document
from skyctl.host.logs import to_stderr
from skyctl.host.signals import Stop
from skyctl.monitor import metrics
from skyctl.monitor.loop import Monitor
from skyctl.store.db import Database

STATES = sa.text("SELECT id, state, attempts, finished_at FROM container_migrations ORDER BY id")


class Fate:
    """Counts boundaries, and kills at the last one."""

    def __init__(self, left: int) -> None:
        self._left = left

    def pass_by(self) -> None:
        """One boundary more."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalDatabase(Database):
    """A database whose user dies after a commit that has changed a migration."""

    fate: Fate

    @contextmanager
    def transaction(self, limit_seconds: float = 10) -> Iterator[sa.Connection]:
        """As it is, and then perhaps the end."""
        with super().transaction(limit_seconds) as tx:
            before = tx.execute(STATES).all()
            yield tx
            changed = tx.execute(STATES).all() != before
        if changed:
            self.fate.pass_by()


class MortalEngine:
    """An engine whose user dies before or after an order."""

    def __init__(self, engine: Any, fate: Fate) -> None:
        self._engine, self._fate = engine, fate

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Whatever gives no order."""
        found: Callable[..., Any] = getattr(self._engine, name)
        return found

    def move(
        self, service_id: str, version: int, node_id: str, labels: Mapping[str, str], order: str = "start-first"
    ) -> None:
        """The order, between two boundaries."""
        self._fate.pass_by()
        self._engine.move(service_id, version, node_id, labels, order)
        self._fate.pass_by()

    def write(self, service_id: str, version: int, spec: Document) -> None:
        """The order, between two boundaries."""
        self._fate.pass_by()
        self._engine.write(service_id, version, spec)
        self._fate.pass_by()


def main() -> None:
    """Monitor until the end."""
    to_stderr()
    given = settings.load()
    context = wiring.connect(given, given.database_url or "", connections=4)
    fate = Fate(int(sys.argv[1]))
    database = MortalDatabase(given.database_url or "", connections=4)
    database.fate = fate
    engine = MortalEngine(context.engine(), fate)
    stop = Stop()
    stop.on_signals()
    Monitor(replace(context, db=database, engine=lambda: engine), timedelta(seconds=1), metrics.Meters()).run(stop)


if __name__ == "__main__":
    main()
