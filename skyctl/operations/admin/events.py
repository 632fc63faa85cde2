"""The log of events: read it from a number on, and wait for more."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from skyctl.domain.cluster import Event
from skyctl.operations.shared.context import Context
from skyctl.store import alerts, db, events, retention

AT_ONCE = 1000

drain = db.drain


def since(context: Context, seq: int, limit: int = AT_ONCE) -> list[Event]:
    """Return the events after a number, in order, without a gap: none before the last of them can still appear.

    Those that were kept long enough are gone: see `begins_after`.
    """
    with context.db.transaction() as tx:
        return events.since(tx, seq, limit)


def begins_after(context: Context, seq: int) -> int | None:
    """Return the number of the last event that is gone where it is after this one; None where none is missing.

    Ask after reading: what goes between the two is then said, too.
    """
    with context.db.transaction() as tx:
        gone = retention.removed_seq(tx)
        return gone if gone > seq else None


def latest(context: Context, limit: int) -> tuple[list[Event], datetime]:
    """Return the last events, in order, and the database's time."""
    with context.db.transaction() as tx:
        return events.latest(tx, limit), db.now(tx)


@contextmanager
def listening(context: Context, *, to_alerts: bool = False) -> Iterator[db.Listener]:
    """Open a connection that becomes readable when there are new events, or alerts. See `drain`."""
    with context.db.listening(alerts.NEWS_CHANNEL if to_alerts else events.NEWS_CHANNEL) as news:
        yield news
