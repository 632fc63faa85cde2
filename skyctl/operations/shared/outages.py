"""Stories of `serve` itself: it can hear workers, or nobody could."""

from datetime import timedelta
from uuid import UUID

from skyctl.domain.cluster import Outage
from skyctl.operations.shared.context import Context
from skyctl.rules import health
from skyctl.store import db
from skyctl.store import outages as stored_outages

GAP = timedelta(seconds=5)
KEPT = timedelta(days=30)


def touch(context: Context, instance: UUID, hostname: str, pid: int) -> None:
    """Note that this process can hear workers; after a gap in which none could, the gap. Raises DatabaseUnavailable."""
    with context.db.transaction() as tx:
        stored_outages.touch(tx, instance, hostname, pid, GAP)


def begin(context: Context, instance: UUID, hostname: str, pid: int) -> None:
    """`touch` for the first time, and forget what is long past."""
    touch(context, instance, hostname, pid)
    with context.db.transaction() as tx:
        stored_outages.forget(tx, KEPT)


def known_outages(tx: db.Transaction) -> list[Outage]:
    """The outages of ours, the present one among them; none where no `serve` ever ran and others hear the workers."""
    found, last, now = list(stored_outages.recorded(tx)), stored_outages.last_seen_at(tx), db.now(tx)
    if last is not None and now - last > GAP:
        found.append(Outage(last, now))
    return health.merged(found)
