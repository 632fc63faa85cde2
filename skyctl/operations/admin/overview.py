"""An overview of the cluster: all that `skyctl cluster top` shows."""

from skyctl.domain.cluster import Lease, Overview
from skyctl.operations.shared.context import Context
from skyctl.store import cluster_stats, db, events, health, leases, migration_summaries, workers


def overview(context: Context, most: int) -> Overview:
    """Return the cluster at one moment, with at most `most` of the worst workers and of the last events."""
    with context.db.transaction() as tx:
        lease = leases.latest(tx)
        return Overview(
            read_at=db.now(tx),
            policy=context.health,
            stats=cluster_stats.stats(tx),
            worst=workers.worst(tx, most),
            events=events.latest(tx, most),
            leader=Lease(lease.holder, lease.term) if lease and lease.leads else None,
            monitor_seen_at=lease.last_pass_at if lease else None,
            mass_failures=health.open_mass_failures(tx),
            migrations=migration_summaries.unfinished(tx),
        )
