"""Outages of ours: the times in which no `serve` could hear workers."""

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
    """Note that this process can hear workers, and the outage where none could before. Raises DatabaseUnavailable."""
    with context.db.transaction() as tx:
        stored_outages.touch(tx, instance, hostname, pid, GAP)


def begin(context: Context, instance: UUID, hostname: str, pid: int) -> None:
    """Do a first `touch`, and forget the outages that are long past."""
    touch(context, instance, hostname, pid)
    with context.db.transaction() as tx:
        stored_outages.forget(tx, KEPT)


def known_outages(tx: db.Transaction) -> list[Outage]:
    """Return the outages of ours with the present one; none where no `serve` ever ran: others hear the workers."""
    last, now = stored_outages.last_seen_at(tx), db.now(tx)
    outages = list(stored_outages.recorded(tx))  # after the last sign of life: else a gap may end unseen in between
    if last is not None and now - last > GAP:
        outages.append(Outage(last, now))
    return health.merged(outages)
