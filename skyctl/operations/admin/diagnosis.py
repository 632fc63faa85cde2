"""Diagnosis of a worker's status: what decided it, what the facts are now, what would change it."""

from datetime import timedelta
from uuid import UUID

from skyctl.domain.cluster import Diagnosis
from skyctl.domain.event_filter import EventFilter
from skyctl.domain.events import EventKind
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.outages import known_outages
from skyctl.rules import health
from skyctl.store import db, events, leases
from skyctl.store import health as store


def diagnose(context: Context, worker_id: UUID) -> Diagnosis:
    """Return why a worker has its status. Raises WorkerNotFound."""
    with context.db.transaction() as tx:
        worker = lookup.get_worker(tx, worker_id)
        now, outages, heard_at = db.now(tx), known_outages(tx), worker.last_heartbeat_at
        silence = None if heard_at is None else health.heard_silence(heard_at, now, outages)
        decisions = events.latest(tx, 1, EventFilter([worker_id], [EventKind.STATUS_CHANGED]))
        return Diagnosis(
            worker=worker,
            read_at=now,
            policy=context.health,
            decided_by=decisions[-1] if decisions else None,
            silence=silence,
            deaf=timedelta() if heard_at is None or silence is None else now - heard_at - silence,
            mass_failure=store.mass_failure(tx, worker.mass_failure_id) if worker.mass_failure_id else None,
            verdict=health.assess(worker, now, outages, context.health),
            outlook=health.outlook(worker, now, outages, context.health),
            monitor_seen_at=leases.last_pass_at(tx),
        )
