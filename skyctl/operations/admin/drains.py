"""Stories of emptying workers: asked for, planned, watched, taken back. The monitor does the moving."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from skyctl.domain.cluster import Actor, Event, Worker
from skyctl.domain.events import EventKind
from skyctl.domain.workloads import (
    DrainOptions,
    DrainProgress,
    Migration,
    MigrationState,
    Placement,
    Planned,
    Refusal,
    Service,
)
from skyctl.operations.shared import candidates, lookup
from skyctl.operations.shared.context import Context
from skyctl.rules import health
from skyctl.rules.migrations import UNDER_WAY
from skyctl.store import db, events, migrations, services, workers
from skyctl.store import drains as store

MOST_REASONS = 5


def drain(
    context: Context, worker_ids: Sequence[UUID], actor: Actor, drain_options: DrainOptions = DrainOptions()
) -> list[Worker]:
    """Note that workers are to be emptied: none of them takes anything new from then on. The monitor moves what is
    there.

    A drain that stands goes on, as it is now wished; one that is over begins anew. Raises WorkerNotFound.
    """
    with context.db.transaction() as tx:
        events.lock(tx)
        store.hold_heartbeats(tx)
        found = [lookup.lock_worker(tx, worker_id) for worker_id in sorted(worker_ids)]
        for worker in found:
            if store.request(tx, worker.id, drain_options):
                asked = Event(
                    EventKind.DRAIN_REQUESTED, worker.id, worker.name, actor.name, reason=drain_options.reason or ""
                )
                events.record(tx, asked, actor)
        db.notify_news(tx)
        return found


def undrain(context: Context, worker_id: UUID, actor: Actor, reason: str | None = None) -> Worker:
    """Note that a worker is no longer to be emptied: what has not started stays. Raises WorkerNotFound."""
    with context.db.transaction() as tx:
        events.lock(tx)
        worker = lookup.lock_worker(tx, worker_id)
        if health.is_to_drain(worker):
            store.end(tx, worker_id)
            events.record(
                tx, Event(EventKind.DRAIN_CANCELLED, worker_id, worker.name, actor.name, reason=reason or ""), actor
            )
            db.notify_news(tx)
        return worker


def plan(context: Context, worker_ids: Sequence[UUID]) -> list[Planned]:
    """Where the containers of these workers would go if all of them were emptied at once, or what is missing; changes
    nothing.

    Raises EngineUnavailable.
    """
    nodes = context.engine().observe(()).nodes
    with context.db.transaction() as tx:
        there = services.on_workers(tx, worker_ids)
        demands = [
            candidates.demand(each.id, each.spec, each.current.worker_id if each.current else None) for each in there
        ]
        places = candidates.plan(tx, demands, nodes, context.health, closed=worker_ids)
        names = workers.names_of(tx)
    return [_planned(service, place, names) for service, place in zip(there, places, strict=True)]


def _planned(service: Service, place: Placement | Refusal, names: dict[UUID, str]) -> Planned:
    target = names.get(place.worker_id) if isinstance(place, Placement) else None
    source = service.current.worker_name if service.current else None
    return Planned(service.spec.name, service.organization, source, target, place.reason)


def progress(context: Context, worker_ids: Sequence[UUID]) -> list[DrainProgress]:
    """How far the drains of these workers are. Raises WorkerNotFound."""
    with context.db.transaction() as tx:
        found = [lookup.get_worker(tx, worker_id) for worker_id in worker_ids]
        return [_progress(tx, worker) for worker in found]


def _progress(tx: db.Transaction, worker: Worker) -> DrainProgress:
    since = worker.drain_requested_at
    off = migrations.off_since(tx, worker.id, since) if since else []
    counts = Counter(each.state for each in off)
    unfinished = {each.service_id for each in off if each.finished_at is None}
    left = [each.spec.name for each in services.on_workers(tx, [worker.id]) if each.id not in unfinished]
    under_way = sum(counts[state] for state in UNDER_WAY)
    return DrainProgress(
        worker, counts[MigrationState.COMPLETED], under_way, len(unfinished) - under_way, left, _reasons(off)
    )


def _reasons(those: Sequence[Migration]) -> list[str]:
    """Why those that have not moved have not, the first few."""
    told = [
        f"{each.service_name}: {each.reason}"
        for each in those
        if each.reason and each.state is not MigrationState.COMPLETED
    ]
    return told[:MOST_REASONS]
