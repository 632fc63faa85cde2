"""The migrator: a thread of the leading monitor that reconciles migrations and services, since asking the engine may
take long, and the check of the workers must not.

An engine that does not answer is a state: it is noted and logged once, and asked again with growing pauses. Only an
answer ends it: where nothing else is to be asked, it is asked for its nodes.
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
from skyctl.operations.monitor import (
    alerts,
    drains,
    engine_watch,
    migrations,
    node_claims,
    node_watch,
    orders,
    services,
    swarm,
)
from skyctl.operations.shared.leadership import Term

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
RECONCILE_ALL_SECONDS = 10.0
TELL_JOIN_SECONDS = 10.0
FORGET_SECONDS = 600.0
ONCE_SECONDS = 1.0  # what is due later than that is left to the next run
BOUND_SECONDS = 120.0  # many times what the engine and the database may take for one answer
UNKNOWN = "not read yet"

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
        self._waiting: migrations.Waiting | None = None
        self._is_woken, self._step_at, self._due_at = False, 0.0, 0.0
        self._reconcile_all_at = self._tell_join_at = self._remove_nodes_at = self._forget_at = self._look_at = 0.0

    def start(self) -> None:
        """Start the thread, which lives until the process ends and does nothing without a term."""
        self._loop.start()

    def lead(self, term: Term | None) -> None:
        """Work in this term from now on; None for no more."""
        self._term, self._trouble, self._tell_join_at = term, UNKNOWN, 0.0
        self.wake()

    def wake(self) -> None:
        """Take the next step now, and a look at the nodes that are to be left."""
        self._look_at, self._is_woken = 0.0, True
        self._loop.wake()

    def run_until_idle(self, term: Term, seconds: float) -> None:
        """Take steps until none is left that can be taken soon, or that time has passed."""
        deadline = time.monotonic() + seconds
        pause = self._step(term)
        while pause is not None and pause < ONCE_SECONDS and time.monotonic() + pause < deadline:
            threading.Event().wait(pause)
            self._look_at = 0.0
            pause = self._step(term)

    def _serve(self) -> float | None:
        term, started = self._term, time.monotonic()
        if term is None:
            return None
        try:
            if self._only_waits(term):
                return max(migrations.POLL_SECONDS, (time.monotonic() - started) / 2)
        except (EngineUnavailable, EngineRefused) as error:
            self._waiting = None
            return self._note_away(term, error)
        pause = self._step(term)
        took = time.monotonic() - started
        self._step_at = time.monotonic() + max(drains.LOOK_SECONDS, took)
        return pause and max(pause, took / 2)

    def _only_waits(self, term: Term) -> bool:
        """Tell whether nothing is to be done but to wait for migrations, and none has got on. Raises EngineUnavailable,
        EngineRefused."""
        waiting, now = self._waiting, time.monotonic()
        if waiting is None or self._is_woken or now >= min(self._step_at, self._due_at):
            return False
        try:
            return not migrations.calls_for_a_step(term, waiting)
        except (EngineUnavailable, EngineRefused):
            raise
        except Exception:  # noqa: BLE001 - the step meets it, too, and says so
            return False

    def _step(self, term: Term) -> float | None:
        """Take one step of everything; return in how many seconds the next is due, None for not before there is
        news."""
        self._waiting, self._is_woken = None, False  # before the look: who wakes it in between is not missed
        looks = self._look_is_due()
        try:
            all_of_them = self._all_are_due()
            claim_events = node_claims.check_claims(term, all_of_them=all_of_them)
            node_events, away = node_watch.note_nodes(term) if all_of_them else ([], None)
            progress = self._migrate(term, looks=looks)
            service_events, later = services.reconcile_services(term, all_of_them=all_of_them)
            if later == 0.0:
                self._look_at = 0.0
            self._tell(term, [*claim_events, *node_events, *progress.events, *service_events])
            if away:
                raise away
            self._note_answer(term)
            self._tend_swarm(term)
            self._stepping.works()
            if later is None and progress.waiting:
                self._waiting, self._due_at = progress.waiting, time.monotonic() + progress.waiting.due_seconds
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
            if now >= self._forget_at:
                self._forget_at = now + FORGET_SECONDS
                orders.forget_gone(term)
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

    def _migrate(self, term: Term, *, looks: bool) -> migrations.Progress:
        """Take a step of all migrations, and another one where that is called for at once: what has ended makes way for
        what has waited, and nothing else comes between."""
        progress = migrations.reconcile_migrations(term, looks=looks)
        if progress.next_seconds != 0.0:
            return progress
        self._tell(term, progress.events)
        return migrations.reconcile_migrations(term, looks=False)

    def _look_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + drains.LOOK_SECONDS
        return True

    def _tell(self, term: Term, events: Sequence[Event]) -> None:
        if events:
            self._moved(events, alerts.raise_alerts(term))

    def _note_away(self, term: Term, error: SkyctlError) -> float:
        """Note that the engine does not answer; return how long to wait, which is longer each time."""
        pause, self._pause = self._pause, min(LONGEST_PAUSE_SECONDS, 2 * self._pause)
        try:
            absence = engine_watch.note_away(term, error.message)
            self._tell(term, absence.events)
        except (DatabaseUnavailable, DatabaseRefused, LostLead):
            return pause
        if error.message != self._trouble:
            log.warning("action=engine_away reason=%r", error.message)
            self._trouble = error.message
        return pause if absence.due_seconds is None else min(pause, absence.due_seconds)

    def _note_answer(self, term: Term) -> None:
        """Note that the engine answers, where it did not, after it has. Raises EngineUnavailable."""
        if self._trouble is UNKNOWN:
            self._trouble = engine_watch.trouble(term)
        if self._trouble is None:
            return
        term.observe(())
        self._tell(term, engine_watch.note_answer(term))
        log.info("action=engine_answers")
        self._trouble, self._pause = None, FIRST_PAUSE_SECONDS
