"""The database's clock, which may be set: stored times follow it back, and a leap ahead is an outage of ours."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from skyctl.domain.cluster import Event, Outage
from skyctl.domain.event_details import ClockSet
from skyctl.domain.events import EventKind
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leadership import TTL, Term
from skyctl.operations.shared.outages import GAP
from skyctl.store import clock as store
from skyctl.store import db, events, leases, outages

TOLERANCE = timedelta(seconds=1)
UNNOTICED = timedelta(seconds=10)
MOVE_SECONDS = 60.0  # many times what a cluster of 100,000 workers takes: cut off, it would begin anew for ever


def follow_back(context: Context, actor: str) -> list[Event]:
    """Set right what is stored where the database's clock was set back; return the event of that, if it was.

    That is seen by times of our own that are ahead of it. They are noted every second, so what is written between the
    step and its discovery is of the last seconds. Raises DatabaseUnavailable.
    """
    with context.db.transaction() as tx:
        if store.read(tx, TTL).ahead <= TOLERANCE:
            return []
    return _move_back(context, actor)


def _move_back(context: Context, actor: str) -> list[Event]:
    with context.db.transaction(limit_seconds=MOVE_SECONDS) as tx:
        db.limit_lock_waits(tx)
        leases.lock(tx)
        events.lock(tx)
        store.lock(tx)
        reading = store.read(tx, TTL)
        if reading.ahead <= TOLERANCE:  # somebody else was first
            return []
        store.move_back(tx, reading, TTL, UNNOTICED)
        return events.append(tx, _clock_set(actor, -reading.ahead, "set back", "stored times were moved with it"))


class _Look(NamedTuple):
    """The database's time, and ours, which nobody sets, just before that was read and just after; all in seconds."""

    theirs: float
    earliest: float
    latest: float


def _ours() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while this host sleeps: its sleep is no leap


class Watch:
    """A monitor's watch over the database's clock, from look to look, whether it leads or not: by a leap its term may
    end."""

    def __init__(self, ours: Callable[[], float] = _ours) -> None:
        """Watch from the first look on. `ours`: seconds of a clock that nobody sets."""
        self._ours = ours
        self._last: _Look | None = None
        self._leaps: list[Outage] = []
        self.was_set = False

    def look(self, context: Context) -> list[Event]:
        """Find out whether the clock `was_set` since the last look. Follow it where it was set back, unless somebody
        has; return the event of that. Raises DatabaseUnavailable."""
        with context.db.transaction() as tx:
            earliest = self._ours()
            at, ahead = store.read(tx, TTL)
            look = _Look(at.timestamp(), earliest, self._ours())
        last, self._last = self._last or look, look
        passed = look.theirs - last.theirs
        leap = timedelta(seconds=passed - (look.latest - last.earliest))
        lag = timedelta(seconds=look.earliest - last.latest - passed)
        if leap > GAP:
            self._leaps.append(Outage(at - leap, at))
        elif max(ahead, lag) > TOLERANCE:
            self._leaps.clear()  # by a clock that counts no more
        self.was_set = bool(self._leaps) or max(ahead, leap, lag) > TOLERANCE
        return _move_back(context, "monitor") if ahead > TOLERANCE else []

    def follow(self, term: Term) -> list[Event]:
        """Look, and note the leaps ahead as outages, unless `serve` has noted a gap; return the events.

        Raises LostLead, DatabaseUnavailable.
        """
        events_so_far = self.look(term.context)
        if self._leaps:
            with term.recording() as tx:
                unknown = [leap for leap in self._leaps if not outages.is_known(tx, leap)]
                for leap in unknown:
                    outages.record(tx, leap)
                leapt = [leap.ended_at - leap.started_at for leap in unknown]
                so = "an outage of ours, nobody's silence"
                events_so_far += events.append(tx, *(_clock_set("monitor", by, "set ahead", so) for by in leapt))
            self._leaps.clear()
        return events_so_far


def _clock_set(actor: str, by: timedelta, done: str, so: str) -> Event:
    seconds = round(by.total_seconds(), 1)
    reason = f"the database's clock was {done} by {abs(seconds):g} s: {so}"
    return Event(EventKind.CLOCK_SET, None, None, actor, reason=reason, details=ClockSet(seconds=seconds))
