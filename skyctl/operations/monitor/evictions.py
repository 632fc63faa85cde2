"""Evictions by the leading monitor: write down what must leave its worker, and call off what need not any more."""

from skyctl.domain.workloads import Migration
from skyctl.rules import eviction
from skyctl.store import db, evictions


def evict(tx: db.Transaction) -> list[Migration]:
    """Write down a migration for each container that must leave its worker; return the new ones."""
    containers = evictions.candidates(tx)
    if not containers:  # most passes: they ask the database for nothing else
        return []
    now = db.now(tx)
    verdicts = [(container, eviction.evict(container, now)) for container in containers]
    return evictions.insert(tx, [(container, *verdict) for container, verdict in verdicts if verdict])


def call_off(tx: db.Transaction) -> list[Migration]:
    """Cancel the migrations that have not started and that nothing calls for any more; return them."""
    migrations = evictions.doubtful(tx)
    if not migrations:
        return []
    now = db.now(tx)
    reasons = [(migration.id, eviction.called_off(migration, now)) for migration in migrations]
    return evictions.cancel(tx, [(migration_id, reason) for migration_id, reason in reasons if reason])
