"""Cordon workers and take that back. The monitor closes and opens their nodes in the swarm."""

from collections.abc import Sequence
from uuid import UUID

from skyctl.domain.cluster import Actor, Event, Worker
from skyctl.domain.events import EventKind
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.store import db, drains, events, wishes


def cordon(context: Context, worker_ids: Sequence[UUID], actor: Actor, reason: str | None = None) -> list[Worker]:
    """Let workers take nothing new; what is there stays. Return them as they are then. Raises WorkerNotFound."""
    with context.recording() as tx:
        drains.hold_heartbeats(tx)
        for worker in [lookup.lock_worker(tx, worker_id) for worker_id in sorted(worker_ids)]:
            if wishes.cordon(tx, worker.id, reason):
                events.record(
                    tx, Event(EventKind.CORDONED, worker.id, worker.name, actor.name, reason=reason or ""), actor
                )
        db.notify_news(tx)
        return [lookup.get_worker(tx, worker_id) for worker_id in worker_ids]


def uncordon(context: Context, worker_id: UUID, actor: Actor, reason: str | None = None) -> Worker | None:
    """Let a worker take something new again, and return it; None where it was not cordoned. Raises WorkerNotFound."""
    with context.recording() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        if worker.cordon is None:
            return None
        wishes.uncordon(tx, worker_id)
        events.record(tx, Event(EventKind.UNCORDONED, worker_id, worker.name, actor.name, reason=reason or ""), actor)
        db.notify_news(tx)
        return lookup.get_worker(tx, worker_id)
