"""The mover: a thread of the leading monitor that has migrations advanced and services followed, since asking the
engine may take long, and the look at the workers may not.

An engine that does not answer is a state: it is noted and logged once, and asked again with growing pauses.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from skyctl.domain.cluster import Event, Lease
from skyctl.domain.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    EngineRefused,
    EngineUnavailable,
    LostLead,
    SkyctlError,
)
from skyctl.operations.monitor import alerts, migrations, services
from skyctl.operations.shared.context import Context

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
FOLLOW_SECONDS = 10.0
ONCE_SECONDS = 1.0  # what is due later than that is left to the next run
UNKNOWN = "not asked yet"

log = logging.getLogger(__name__)


class Migrator:
    """Moves for one term after the other; `moved` is told of the events of each step, and of the alerts that they call
    for."""

    def __init__(self, context: Context, moved: Callable[[Sequence[Event], alerts.Raised], None]) -> None:
        self._context, self._moved = context, moved
        self._wake = threading.Event()
        self._lease: Lease | None = None
        self._trouble: str | None = UNKNOWN
        self._pause = FIRST_PAUSE_SECONDS
        self._follow_at = 0.0

    def start(self) -> None:
        """Begin, until the process ends; nothing is done without a term."""
        threading.Thread(target=self._serve, name="migrator", daemon=True).start()

    def lead(self, lease: Lease | None) -> None:
        """Move for this term; None for no more."""
        self._lease, self._trouble = lease, UNKNOWN
        self._wake.set()

    def wake(self) -> None:
        """Say that there may be something to do."""
        self._wake.set()

    def run_until_idle(self, lease: Lease, seconds: float) -> None:
        """Take step after step until nothing is left that a step can be taken of, or that time has passed."""
        deadline = time.monotonic() + seconds
        pause = self._step(lease)
        while pause is not None and pause < ONCE_SECONDS and time.monotonic() + pause < deadline:
            threading.Event().wait(pause)
            pause = self._step(lease)

    def _serve(self) -> None:
        while True:
            self._wake.clear()
            lease = self._lease
            self._wake.wait(self._step(lease) if lease else None)

    def _step(self, lease: Lease) -> float | None:
        """One step of everything; in how many seconds to take the next, if not when there is news."""
        try:
            progress = migrations.reconcile_migrations(self._context, lease)
            followed, later = services.reconcile_services(self._context, lease, all_of_them=self._all_are_due())
            if told := [*progress.events, *followed]:
                self._moved(told, alerts.raise_alerts(self._context, lease))
            self._note(lease, None)
            return min((each for each in (progress.next_seconds, later) if each is not None), default=None)
        except LostLead:
            if self._lease is lease:  # else there is a new term already
                self._lease = None
        except (EngineUnavailable, EngineRefused) as error:
            return self._away(lease, error)
        except (DatabaseUnavailable, DatabaseRefused) as error:
            log.warning("action=move_waits reason=%r", error.message)
            return LONGEST_PAUSE_SECONDS
        except Exception:
            log.exception("action=move_failed")  # whatever it is, the thread goes on
            return LONGEST_PAUSE_SECONDS
        return None

    def _all_are_due(self) -> bool:
        """Whether the engine is to be asked about every service, and not only about those that are on their way."""
        now = time.monotonic()
        if now < self._follow_at:
            return False
        self._follow_at = now + FOLLOW_SECONDS
        return True

    def _away(self, lease: Lease, error: SkyctlError) -> float:
        """The engine does not answer: say so once, and wait longer each time."""
        self._note(lease, error.message)
        pause, self._pause = self._pause, min(LONGEST_PAUSE_SECONDS, 2 * self._pause)
        return pause

    def _note(self, lease: Lease, trouble: str | None) -> None:
        if trouble == self._trouble:
            return
        try:
            migrations.note_engine(self._context, lease, trouble)
        except (DatabaseUnavailable, DatabaseRefused, LostLead):
            return
        if trouble is None:
            log.info("action=engine_answers")
            self._pause = FIRST_PAUSE_SECONDS
        else:
            log.warning("action=engine_away reason=%r", trouble)
        self._trouble = trouble
