"""The story of the cluster as a whole: everything that one look at it shows."""

from skyctl.domain.cluster import Lease, Overview
from skyctl.operations.shared.context import Context
from skyctl.store import db, events, health, leases, migration_summaries, workers


def overview(context: Context, most: int) -> Overview:
    """The cluster at one moment, with at most so many of the worst workers and of the last events."""
    with context.db.transaction() as tx:
        lead = leases.latest(tx)
        return Overview(
            read_at=db.now(tx),
            policy=context.health,
            stats=workers.stats(tx),
            worst=workers.worst(tx, most),
            events=events.latest(tx, most),
            leader=Lease(lead.holder, lead.term) if lead and lead.leads else None,
            monitor_seen_at=lead.last_pass_at if lead else None,
            mass_failures=health.open_mass_failures(tx),
            migrations=migration_summaries.unfinished(tx),
        )
