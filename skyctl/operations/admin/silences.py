"""Silence the alerts of workers for a while, and end that before its time. The alerts themselves stay."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from skyctl.domain.cluster import Actor, Event, Worker
from skyctl.domain.event_details import Silenced
from skyctl.domain.events import EventKind
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.store import db, drains, events, wishes


def silence(
    context: Context, worker_ids: Sequence[UUID], actor: Actor, length: timedelta, reason: str | None = None
) -> list[Worker]:
    """Hold alerts of these workers' health back from the channels for that time from now on, whatever was said before.
    Return the workers as they are then. Raises WorkerNotFound."""
    with context.recording() as tx:
        drains.hold_heartbeats(tx)
        until = db.now(tx) + length
        for worker in [lookup.lock_worker(tx, worker_id) for worker_id in sorted(worker_ids)]:
            wishes.silence(tx, worker.id, until, reason)
            kind, details = EventKind.ALERTS_SILENCED, Silenced(until=until.isoformat())
            events.record(
                tx, Event(kind, worker.id, worker.name, actor.name, reason=reason or "", details=details), actor
            )
        return [lookup.get_worker(tx, worker_id) for worker_id in worker_ids]


def unsilence(context: Context, worker_id: UUID, actor: Actor) -> Worker | None:
    """Send alerts of a worker's health by the channels again, those that were held back now; return the worker, None
    where none are held back. Raises WorkerNotFound."""
    with context.recording() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        if not wishes.silenced(tx, [worker_id]):
            return None
        wishes.unsilence(tx, worker_id)
        events.record(tx, Event(EventKind.ALERTS_UNSILENCED, worker_id, worker.name, actor.name), actor)
        db.notify_news(tx)
        return lookup.get_worker(tx, worker.id)


def silenced(context: Context) -> list[Worker]:
    """Return the workers whose alerts are held back now, by name."""
    with context.db.transaction() as tx:
        return wishes.silenced(tx)
