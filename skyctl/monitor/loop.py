"""The monitor's loop: lead, check every worker, raise alerts, then wait for news, a deadline, or the interval to pass.

One monitor leads, the others stand by. It writes and orders only within its term: once that has ended, nothing.
"""

import hashlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

from skyctl.domain.cluster import Event
from skyctl.domain.errors import DatabaseBusy, DatabaseRefused, DatabaseUnavailable, LostLead
from skyctl.host import sd_notify, vital
from skyctl.host.condition import Condition, Conditions, unexpected
from skyctl.host.signals import Stop
from skyctl.monitor.answerer import Answerer
from skyctl.monitor.deliverer import Deliverer
from skyctl.monitor.migrator import Migrator
from skyctl.operations.admin import monitor_requests
from skyctl.operations.monitor import alerts, certificates, health, retention, sight, token_rotation
from skyctl.operations.shared import clock, leadership
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leadership import Term
from skyctl.store import db

DEBOUNCE_SECONDS = 0.2
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 30.0
RENEW_SECONDS = leadership.TTL.total_seconds() / 3
STAND_BY_SECONDS = 2.0
BOUND_SECONDS = 180.0  # longer than a pass over a cluster of 100,000 workers that all changed
PASS_OVER_SECONDS = 300.0
DELIVERY_SECONDS = 35.0  # longer than any channel may take
MOVING_SECONDS = 60.0
ROTATE_SECONDS = 60.0
PRUNE_SECONDS, PRUNE_ON_SECONDS = 60.0, 5.0
END_SECONDS = 0.7

log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Observer(Protocol):
    """Counts what a monitor does."""

    def passed(self, seconds: float, health_pass: health.HealthPass, raised: alerts.RaisedAlerts) -> None:
        """Count a pass over all workers."""

    def leads(self, leading: bool) -> None:
        """Note whether the monitor leads."""

    def sent(self, channel: str, arrived: bool) -> None:
        """Count an attempt to send an alert by a channel."""

    def moved(self, events: Sequence[Event], raised: alerts.RaisedAlerts) -> None:
        """Count a step of migrations or services."""


class Monitor:
    """One monitor, to `run` until it is stopped, or to `run_once`. `perform` does what callers of the API ask of it."""

    def __init__(
        self, context: Context, interval: timedelta, observer: Observer, perform: monitor_requests.Perform | None = None
    ) -> None:
        self._context = context
        self._interval = interval.total_seconds()
        self._observer = observer
        self._deliverer = Deliverer(context, observer.sent)
        self._migrator = Migrator(self._has_moved)
        self._answerer = Answerer(context, perform) if perform else None
        self._vital = vital.Vital("monitor", BOUND_SECONDS)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{_place()}-{uuid4().hex[:8]}"
        self._clock = clock.Watch()
        self._sight = sight.Sight()
        self._tokens = token_rotation.Round()
        self._passed_over: dict[UUID, float] = {}
        self._pause = FIRST_BACKOFF_SECONDS
        self._database = Condition(log, "database_lost", "database_answers", quiet_seconds=0.0)
        self._holding = Condition(log, "put_off", "goes_on")
        self._steps = Conditions(log, "step_failed", "step_works", "step")
        self._pruning = Conditions(log, "prune_refused", "prune_works", "kind")
        self._stands_by = False
        self._rotates_at = 0.0
        self._prunes_at = 0.0

    def run_once(self) -> bool:
        """Make one pass over all workers and deliver its alerts; return False where another monitor leads.

        Raises DatabaseUnavailable.
        """
        term = self._lead()
        if term is None:
            return False
        try:
            self._check(term)
            self._migrator.run_until_idle(term, MOVING_SECONDS)
        finally:
            term.release()
        self._deliverer.deliver_what_waits(DELIVERY_SECONDS)
        return True

    def run(self, stop: Stop) -> None:
        """Lead or stand by until the stop; while the database is away, and after whatever else it did not expect, try
        again after growing pauses."""
        sd_notify.notify("READY=1", "STATUS=starting")
        self._vital.begin()
        vital.watch()
        self._deliverer.start()
        self._migrator.start()
        if self._answerer:
            self._answerer.start()
        threading.Thread(target=self._end_in_time, args=[stop], name="end", daemon=True).start()
        while not stop.is_set:
            try:
                with self._context.db.listening() as news:
                    log.info("action=watching interval_seconds=%g", self._interval)
                    self._lead_or_stand_by(stop, news)
            except (DatabaseUnavailable, DatabaseRefused) as error:
                self._observer.leads(False)
                self._database.failed(error.message)
                sd_notify.notify("STATUS=the database does not answer")
            except Exception as error:  # noqa: BLE001 - whatever it is, the monitor goes on
                self._vital.failed(error)
            else:
                break
            self._rest(stop, self._pause)
            self._pause = min(2 * self._pause, LONGEST_BACKOFF_SECONDS)
        vital.stand_down()
        sd_notify.notify("STOPPING=1")
        log.info("action=stopped")

    def _end_in_time(self, stop: Stop) -> None:
        """Give up a database that does not answer soon after the stop was asked for."""
        while not stop.is_set:
            stop.wait(3600)
        threading.Event().wait(END_SECONDS)
        self._context.db.give_up()

    def _lead_or_stand_by(self, stop: Stop, news: db.Listener) -> None:
        while not stop.is_set:
            term = self._lead()
            if term is None:
                self._database_works()
                if not self._stands_by:
                    log.info("action=stands_by")
                    sd_notify.notify("STATUS=stands by: another monitor leads")
                self._stands_by = True
                self._rest(stop, STAND_BY_SECONDS)
                continue
            self._stands_by = False
            log.info("action=leads term=%d", term.number)
            sd_notify.notify(f"STATUS=leads term {term.number}")
            self._observer.leads(True)
            try:
                self._watch(term, stop, news)
                term.release()
            except (LostLead, DatabaseUnavailable, DatabaseRefused) as error:
                log.warning("action=lost_lead term=%d", term.number)
                if not isinstance(error, LostLead):
                    raise
            finally:
                self._migrator.lead(None)
                self._observer.leads(False)

    def _lead(self) -> Term | None:
        """Begin a term where nobody else leads, at the database's present clock. Raises DatabaseUnavailable."""
        self._log(self._clock.look(self._context), alerts.RaisedAlerts())
        return leadership.lead(self._context, self._holder, has_ended)

    def _watch(self, term: Term, stop: Stop, news: db.Listener) -> None:
        """Make one pass after the other until the stop. Raises LostLead, DatabaseUnavailable."""
        self._deliverer.wake()
        self._migrator.lead(term)
        while not stop.is_set:
            deadline = self._or_put_off(self._check, term)
            self._database_works()
            self._migrator.wake()
            longest = self._interval if deadline is None else min(self._interval, max(0.0, deadline) + DEBOUNCE_SECONDS)
            next_check_at = time.monotonic() + longest
            while not stop.is_set and (left := next_check_at - time.monotonic()) > 0:
                if self._rest(stop, min(left, RENEW_SECONDS), news):
                    # what happens together is checked together
                    stop.wait(DEBOUNCE_SECONDS)
                    self._sight.name(_named(db.drain(news)))
                    break
                self._or_put_off(self._renew, term)

    def _database_works(self) -> None:
        self._database.works()
        self._vital.works()
        self._pause = FIRST_BACKOFF_SECONDS

    def _rest(self, stop: Stop, seconds: float, *others: Any) -> bool:
        """Wait, as `Stop.wait` does."""
        with self._vital.resting():
            return stop.wait(seconds, *others)

    def _or_put_off(self, step: Callable[[Term], float | None], term: Term) -> float | None:
        """Take a step, or leave it for a moment where somebody else holds a lock that it needs. Return in how many
        seconds the next is due. Raises LostLead, DatabaseUnavailable."""
        try:
            seconds = step(term)
            self._holding.works()
            return seconds
        except DatabaseBusy as error:
            self._holding.failed(error.message)
            return health.CHECK_AGAIN_SECONDS

    def _renew(self, term: Term) -> None:
        self._log(self._clock.follow(term), alerts.RaisedAlerts())
        if self._clock.was_set:
            self._sight.forget()
        term.renew()

    def _check(self, term: Term) -> float | None:
        """Make one pass and log each change; return in how many seconds the next is due.

        Raises LostLead, DatabaseUnavailable.
        """
        started = time.monotonic()
        self._passed_over = {worker_id: until for worker_id, until in self._passed_over.items() if until > started}
        health_pass = health.check(term, self._clock, self._passed_over, self._sight)
        if started >= self._rotates_at:
            self._rotates_at = started + ROTATE_SECONDS
            self._log(token_rotation.rotate_due(term, self._tokens), alerts.RaisedAlerts())
        self._or_go_on(self._sign, term)
        raised = alerts.raise_alerts(term)
        self._observer.passed(time.monotonic() - started, health_pass, raised)
        self._log(health_pass.events, raised)
        for poison in health_pass.poison:
            self._passed_over[poison.worker.id] = time.monotonic() + PASS_OVER_SECONDS
            log.error(
                "action=worker_passed_over worker=%s seconds=%g reason=%r",
                poison.worker.id,
                PASS_OVER_SECONDS,
                poison.reason,
            )
        if started >= self._prunes_at:
            self._prunes_at = started + PRUNE_SECONDS
            self._or_go_on(self._prune, term)
        return health_pass.next_deadline_seconds

    def _or_go_on(self, step: Callable[[Term], None], term: Term) -> None:
        """Take a step that keeps nothing else from its turn, whatever a row holds. Raises LostLead,
        DatabaseUnavailable, DatabaseRefused."""
        condition = self._steps[step.__name__.lstrip("_")]
        try:
            step(term)
            condition.works()
        except (LostLead, DatabaseUnavailable, DatabaseRefused):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the others have their turn
            condition.failed(unexpected(error), error=error)

    def _sign(self, term: Term) -> None:
        """Sign what was requested. Raises LostLead, DatabaseUnavailable."""
        if self._context.certificates:
            self._log(certificates.sign_requested(term, self._context.certificates), alerts.RaisedAlerts())

    def _prune(self, term: Term) -> None:
        """Remove some of what is kept long enough. Raises LostLead, DatabaseUnavailable."""
        pruned = retention.prune(term)
        self._prunes_at = time.monotonic() + (PRUNE_ON_SECONDS if pruned.is_more else PRUNE_SECONDS)
        for name, number in pruned.removed:
            log.info("action=pruned kind=%r rows=%d", name, number)
        for name, reason in pruned.refused:
            self._pruning[name].failed(reason)
        for name in self._pruning.keys() - dict(pruned.refused).keys():
            self._pruning[name].works()

    def _has_moved(self, events: Sequence[Event], raised: alerts.RaisedAlerts) -> None:
        self._observer.moved(events, raised)
        self._log(events, raised)

    def _log(self, events: Sequence[Event], raised: alerts.RaisedAlerts) -> None:
        for event in events:
            log.info(
                "action=%s worker=%s name=%r from=%s to=%s term=%s reason=%r",
                event.kind,
                event.worker_id,
                event.worker_name,
                event.from_status,
                event.to_status,
                event.term,
                event.reason,
            )
        for alert in raised.alerts:
            log.info("action=alert kind=%s title=%r", alert.kind, alert.title)
        for event in raised.poison:
            log.error("action=alert_passed_over event=%d kind=%s", event.seq, event.kind)
        if raised.alerts:
            self._deliverer.wake()


def _named(news: Iterable[str]) -> list[UUID]:
    """Return the workers that notifications name; what anybody else has sent names none."""
    words = (word for payload in news for word in payload.split(",") if word)
    return [UUID(word) for word in words if _ID.fullmatch(word)]


def _place() -> str:
    """Return a name for where process ids mean the same as here: this boot of this machine, and this namespace of ids;
    a random one where that cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return hashlib.sha256(f"{boot}{Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:
        return uuid4().hex[:8]


def has_ended(holder: str) -> bool:
    """Tell whether a monitor is known to have ended: it ran here, and its process is gone; False where that cannot be
    known."""
    who, _, place = holder.rpartition(":")
    pid = who.rpartition(":")[2]
    if not pid.isdecimal() or place.partition("-")[0] != _place():
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return state in ("Z", "X")
