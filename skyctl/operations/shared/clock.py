"""The database's clock, which may be set: stored times follow it back, and a leap ahead is an outage of ours."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from skyctl.domain.cluster import Event, Outage
from skyctl.domain.events import ClockSet, EventKind
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leadership import TTL
from skyctl.operations.shared.outages import GAP
from skyctl.store import clock as store
from skyctl.store import db, events, leases, outages

TOLERANCE = timedelta(seconds=1)
UNNOTICED = timedelta(seconds=10)


def follow_back(context: Context, actor: str) -> Event | None:
    """Set right what is stored where the database's clock was set back; return the event, None where it was not.

    That is seen by times of our own that are ahead of it. They are noted every second, so what is written between the
    step and its discovery is of the last seconds. Raises DatabaseUnavailable.
    """
    with context.db.transaction() as tx:
        if store.read(tx, TTL).ahead <= TOLERANCE:
            return None
    with context.db.transaction() as tx:
        db.limit_lock_waits(tx)
        leases.lock(tx)
        events.lock(tx)
        store.lock(tx)
        reading = store.read(tx, TTL)
        if reading.ahead <= TOLERANCE:  # somebody else was first
            return None
        store.move_back(tx, reading, TTL, UNNOTICED)
        seconds = round(reading.ahead.total_seconds(), 1)
        reason = f"the database's clock was set back by {seconds:g} s: stored times were moved with it"
        event = Event(EventKind.CLOCK_SET, None, None, actor, reason=reason, details=ClockSet(seconds=-seconds))
        return events.append(tx, event)[0]


class _Look(NamedTuple):
    """The database's time, and ours just before it was read and just after, which cannot be set."""

    theirs: float
    earliest: float
    latest: float


def _ours() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while this host sleeps: its sleep is no leap


class Watch:
    """One process's watch over the database's clock, from look to look."""

    def __init__(self, actor: str, ours: Callable[[], float] = _ours) -> None:
        """Watch from the first look on. `ours`: seconds of a clock that nobody sets."""
        self._actor, self._ours = actor, ours
        self._last: _Look | None = None

    def look(self, context: Context) -> list[Event]:
        """Follow the clock where it was set back, and note an outage where it leapt ahead since the last look; return
        the events of that. Raises DatabaseUnavailable."""
        back = follow_back(context, self._actor)
        with context.db.transaction() as tx:
            earliest = self._ours()
            at = store.read(tx, TTL).at
            look, last = _Look(at.timestamp(), earliest, self._ours()), self._last
            self._last = look
            if back or last is None:
                return [back] if back else []
            leap = timedelta(seconds=look.theirs - last.theirs - (look.latest - last.earliest))
            if leap <= GAP:
                return []
            if not outages.is_seen_within(tx, at - leap + GAP, at):  # else a `serve` has noted its gap
                outages.record(tx, Outage(at - leap, at))
            return []
