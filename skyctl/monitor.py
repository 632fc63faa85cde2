"""The monitor's loop: look at every worker, then wait for news, for the next deadline, or for the interval to pass."""

import logging
import os
import select
import socket
from datetime import timedelta
from types import FrameType
from typing import Any

from skyctl import signals
from skyctl.errors import DatabaseUnavailable
from skyctl.operations import health
from skyctl.operations.world import World
from skyctl.store import db

DEBOUNCE_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 30.0

log = logging.getLogger(__name__)


class Stop:
    """A stop that a signal asks for, and that any wait notices at once."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self.is_set = False

    def on_signals(self) -> None:
        """Stop at the signals that end a process."""
        signals.on_end(self._handle)

    def wait(self, seconds: float, *others: Any) -> bool:
        """Wait for the time to pass, for one of the others to have something to read, or for the stop; whether it was that."""
        if not self.is_set:
            select.select([self._reader, *others], [], [], max(0.0, seconds))
        return self.is_set

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True
        self._writer.send(b"\0")


class Monitor:
    """One monitor: `run` until it is stopped, or `run_once`."""

    def __init__(self, world: World, interval: timedelta) -> None:
        self._world = world
        self._interval = interval
        self._holder = f"{socket.gethostname()}:{os.getpid()}"

    def run_once(self) -> health.Pass:
        """One pass over all workers, each change logged. Raises DatabaseUnavailable."""
        done = health.check(self._world, self._holder, 3 * self._interval)
        for change in done.changes:
            log.info(
                "action=status_changed worker=%s name=%s from=%s to=%s reason=%r",
                change.worker_id, change.worker_name, change.from_status, change.to_status, change.reason,
            )  # fmt: skip
        return done

    def run(self, stop: Stop) -> None:
        """Pass after pass until the stop; while the database is away, try again with growing pauses."""
        pause = 1.0
        while not stop.is_set:
            try:
                with self._world.db.listening() as news:
                    log.info("action=watching interval_seconds=%g", self._interval.total_seconds())
                    pause = 1.0
                    self._watch(stop, news)
            except DatabaseUnavailable as error:
                if pause == 1.0:
                    log.warning("action=database_lost reason=%s", error.message)
                stop.wait(pause)
                pause = min(2 * pause, LONGEST_BACKOFF_SECONDS)
        log.info("action=stopped")

    def _watch(self, stop: Stop, news: db.Listener) -> None:
        while not stop.is_set:
            deadline = self.run_once().next_deadline_seconds
            longest = self._interval.total_seconds()
            stop.wait(longest if deadline is None else min(longest, deadline + DEBOUNCE_SECONDS), news)
            if db.drain(news):
                # what happens together is looked at together
                stop.wait(DEBOUNCE_SECONDS)
                db.drain(news)
