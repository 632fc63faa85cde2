"""The log of events: read it from a number on, and wait for more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from skyctl.domain.cluster import Event
from skyctl.domain.errors import WorkerNotFound
from skyctl.domain.event_filter import ALL, EventFilter
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.store import alerts, db, events, retention

AT_ONCE = 1000

drain, await_news = db.drain, db.await_news


def since(context: Context, seq: int, limit: int | None = AT_ONCE, wanted: EventFilter = ALL) -> list[Event]:
    """Return the events after a number, all without `limit`, in order, without a gap: none before the last of them can
    still appear.

    Those that were kept long enough are gone: see `begins_after`.
    """
    with context.db.transaction() as tx:
        return events.since(tx, seq, limit, wanted)


def workers_named(context: Context, references: Sequence[str]) -> list[UUID]:
    """Return the workers of several references, and those that had such a name or id and were removed.

    Raises WorkerNotFound, or ValidationError where several fit.
    """
    found: list[UUID] = []
    for reference in references:
        try:
            found.append(lookup.find_worker(context, reference).id)
        except WorkerNotFound:
            with context.db.transaction() as tx:
                former = events.workers_called(tx, reference)
            if not former:
                raise
            found += former
    return found


def begins_after(context: Context, seq: int) -> int | None:
    """Return the number of the last event that is gone where it is after this one; None where none is missing.

    Ask after reading: what goes between the two is then said, too.
    """
    with context.db.transaction() as tx:
        gone = retention.removed_seq(tx)
        return gone if gone > seq else None


def latest(context: Context, limit: int | None, wanted: EventFilter = ALL) -> list[Event]:
    """Return the last events, all without `limit`, in order."""
    with context.db.transaction() as tx:
        return events.latest(tx, limit, wanted)


@contextmanager
def listening(context: Context, *, to_alerts: bool = False) -> Iterator[db.Listener]:
    """Open a connection that becomes readable when there are new events, or alerts. See `drain`."""
    with context.db.listening(alerts.NEWS_CHANNEL if to_alerts else events.NEWS_CHANNEL) as news:
        yield news
