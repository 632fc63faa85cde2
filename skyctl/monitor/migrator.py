"""The migrator: a thread of the leading monitor that reconciles migrations and services, since asking the engine may
take long, and the check of the workers must not.

An engine that does not answer is a state: it is noted and logged once, and asked again with growing pauses.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from skyctl.domain.cluster import Event
from skyctl.domain.errors import (
    DatabaseBusy,
    DatabaseRefused,
    DatabaseUnavailable,
    EngineRefused,
    EngineUnavailable,
    LostLead,
    SkyctlError,
)
from skyctl.host.condition import Condition, unexpected
from skyctl.host.vital import VitalLoop
from skyctl.operations.monitor import alerts, migrations, node_claims, node_watch, services, swarm
from skyctl.operations.shared.leadership import Term

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
RECONCILE_ALL_SECONDS = 10.0
TELL_JOIN_SECONDS = 10.0
ONCE_SECONDS = 1.0  # what is due later than that is left to the next run
BOUND_SECONDS = 120.0  # many times what the engine and the database may take for one answer
UNKNOWN = "not asked yet"

log = logging.getLogger(__name__)


class Migrator:
    """Reconciles in one term after the other; `moved` is called with the events of each step, and the alerts that they
    ask for."""

    def __init__(self, moved: Callable[[Sequence[Event], alerts.RaisedAlerts], None]) -> None:
        self._moved = moved
        self._loop = VitalLoop("migrator", self._serve, BOUND_SECONDS)
        self._term: Term | None = None
        self._trouble: str | None = UNKNOWN
        self._stepping = Condition(log, "move_waits", "moves_go_on")
        self._pause = FIRST_PAUSE_SECONDS
        self._reconcile_all_at = self._tell_join_at = self._remove_nodes_at = 0.0

    def start(self) -> None:
        """Start the thread, which lives until the process ends and does nothing without a term."""
        self._loop.start()

    def lead(self, term: Term | None) -> None:
        """Work in this term from now on; None for no more."""
        self._term, self._trouble, self._tell_join_at = term, UNKNOWN, 0.0
        self._loop.wake()

    def wake(self) -> None:
        """Take the next step now."""
        self._loop.wake()

    def run_until_idle(self, term: Term, seconds: float) -> None:
        """Take steps until none is left that can be taken soon, or that time has passed."""
        deadline = time.monotonic() + seconds
        pause = self._step(term)
        while pause is not None and pause < ONCE_SECONDS and time.monotonic() + pause < deadline:
            threading.Event().wait(pause)
            pause = self._step(term)

    def _serve(self) -> float | None:
        term = self._term
        return self._step(term) if term else None

    def _step(self, term: Term) -> float | None:
        """Take one step of everything; return in how many seconds the next is due, None for not before there is
        news."""
        try:
            all_of_them = self._all_are_due()
            claim_events = node_claims.check_claims(term, all_of_them=all_of_them)
            if all_of_them:
                node_watch.note_nodes(term)
            progress = migrations.reconcile_migrations(term)
            service_events, later = services.reconcile_services(term, all_of_them=all_of_them)
            if events := [*claim_events, *progress.events, *service_events]:
                self._moved(events, alerts.raise_alerts(term))
            self._note(term, None)
            self._tend_swarm(term)
            self._stepping.works()
            return min((seconds for seconds in (progress.next_seconds, later) if seconds is not None), default=None)
        except LostLead:
            if self._term is term:  # else there is a new one already
                self._term = None
        except (EngineUnavailable, EngineRefused) as error:
            return self._note_away(term, error)
        except (DatabaseUnavailable, DatabaseRefused) as error:
            self._stepping.failed(error.message)
            return FIRST_PAUSE_SECONDS if isinstance(error, DatabaseBusy) else LONGEST_PAUSE_SECONDS
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on
            self._stepping.failed(unexpected(error), error=error)
            return LONGEST_PAUSE_SECONDS
        return None

    def _tend_swarm(self, term: Term) -> None:
        """Do at the engine what `serve` may not. One that does not answer is asked again later; that it does not is
        noted where containers wait for it."""
        now = time.monotonic()
        try:
            if now >= self._tell_join_at:
                self._tell_join_at = now + TELL_JOIN_SECONDS
                swarm.tell_join(term)
            if now >= self._remove_nodes_at:
                for node_id, worker_name, stays in swarm.remove_nodes(term):
                    what = "node_stays" if stays else "node_removed"
                    log.info("action=%s node=%r worker=%r reason=%r", what, node_id, worker_name, stays)
        except (EngineUnavailable, EngineRefused):
            self._tell_join_at = self._remove_nodes_at = now + LONGEST_PAUSE_SECONDS

    def _all_are_due(self) -> bool:
        """Tell whether the engine is to be asked about every service, and not only about those whose containers are on
        their way."""
        now = time.monotonic()
        if now < self._reconcile_all_at:
            return False
        self._reconcile_all_at = now + RECONCILE_ALL_SECONDS
        return True

    def _note_away(self, term: Term, error: SkyctlError) -> float:
        """Note that the engine does not answer; return how long to wait, which is longer each time."""
        self._note(term, error.message)
        pause, self._pause = self._pause, min(LONGEST_PAUSE_SECONDS, 2 * self._pause)
        return pause

    def _note(self, term: Term, trouble: str | None) -> None:
        if trouble == self._trouble:
            return
        try:
            migrations.note_engine(term, trouble)
        except (DatabaseUnavailable, DatabaseRefused, LostLead):
            return
        if trouble is None:
            log.info("action=engine_answers")
            self._pause = FIRST_PAUSE_SECONDS
        else:
            log.warning("action=engine_away reason=%r", trouble)
        self._trouble = trouble
