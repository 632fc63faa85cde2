"""Request, plan, watch and cancel drains. The monitor moves the containers."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from skyctl.domain.cluster import Actor, Event, Worker
from skyctl.domain.drains import DrainOptions, DrainProgress, StillThere
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.event_details import DrainEnd
from skyctl.domain.event_filter import EventFilter
from skyctl.domain.events import EventKind
from skyctl.domain.states import MigrationState
from skyctl.domain.workloads import Migration
from skyctl.operations.admin import swarm_services
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.rules import drain_ends as rules
from skyctl.rules import health
from skyctl.rules.eviction import OVERDUE
from skyctl.rules.migrations import UNDER_WAY
from skyctl.store import db, events, migrations, services
from skyctl.store import drains as store

MOST_REASONS = 5


def drain(
    context: Context, worker_ids: Sequence[UUID], actor: Actor, drain_options: DrainOptions = DrainOptions()
) -> list[Worker]:
    """Request that workers are emptied: none of them takes anything new from then on, and the monitor moves what is
    there.

    A drain that is under way continues with these options; one that is over starts again. Raises WorkerNotFound.
    """
    with context.recording() as tx:
        store.hold_heartbeats(tx)
        drained = [lookup.lock_worker(tx, worker_id) for worker_id in sorted(worker_ids)]
        for worker in drained:
            if store.request(tx, worker.id, drain_options):
                reason = drain_options.reason or ""
                events.record(
                    tx, Event(EventKind.DRAIN_REQUESTED, worker.id, worker.name, actor.name, reason=reason), actor
                )
        db.notify_news(tx)
        return drained


def undrain(
    context: Context, worker_id: UUID, actor: Actor, reason: str | None = None, *, dry_run: bool = False
) -> Worker | None:
    """Cancel the drain of a worker, and return it: containers whose move has not started stay; None where it was not
    drained. Raises WorkerNotFound."""
    with context.recording() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        if not health.is_to_drain(worker):
            return None
        if dry_run:
            return worker
        store.end(tx, worker_id)
        cancelled = Event(EventKind.DRAIN_CANCELLED, worker_id, worker.name, actor.name, reason=reason or "")
        events.record(tx, cancelled, actor)
        db.notify_news(tx)
        return worker


def progress(context: Context, worker_ids: Sequence[UUID]) -> list[DrainProgress]:
    """Return how far the drains of these workers are. Raises WorkerNotFound."""
    with context.db.transaction() as tx:
        drained = [lookup.get_worker(tx, worker_id) for worker_id in worker_ids]
        return [_progress(tx, worker) for worker in drained]


def still_there(context: Context, worker_id: UUID) -> StillThere:
    """Return what is on a drained worker, by what the engine shows now and its agent counted last. Raises
    WorkerNotFound."""
    with context.db.transaction() as tx:
        worker, ours = lookup.get_worker(tx, worker_id), services.on_workers(tx, [worker_id])
        (counted, counted_at), now = store.counted(tx, worker_id), db.now(tx)
    node_id = worker.confirmed_node
    if node_id is None:
        remains = rules.without_node(worker, ours)
    else:
        try:
            node, there = context.engine().observe(()).nodes.get(node_id), swarm_services.on_worker(context, worker)
            is_noted = counted == sum(occupant.containers for occupant in there)
            changed_at = counted_at if is_noted and counted_at else now
            is_down = node is not None and not node.is_up
            remains = (
                rules.node_is_down(worker, ours) if is_down else rules.remains(worker, node, ours, there, changed_at)
            )
        except EngineUnavailable as error:
            remains = rules.engine_is_silent(ours, error.message)
    return StillThere([service.spec.name for service in remains.ours], rules.named(remains.others), remains.unknown)


def _progress(tx: db.Transaction, worker: Worker) -> DrainProgress:
    since = worker.drain_requested_at
    off = migrations.off_since(tx, worker.id, since) if since else []
    counts = Counter(migration.state for migration in off)
    unfinished = [migration for migration in off if migration.finished_at is None]
    moving = {migration.service_id for migration in unfinished}
    left = [service.spec.name for service in services.on_workers(tx, [worker.id]) if service.id not in moving]
    under_way = sum(counts[state] for state in UNDER_WAY)
    reasons = _reasons(off, left if worker.drain_finished_at else [])
    end = _end(tx, worker)
    return DrainProgress(
        worker,
        counts[MigrationState.COMPLETED],
        under_way,
        len(unfinished) - under_way,
        left,
        reasons,
        end.get("others", []),
        end.get("othersCount", 0),
        end.get("unknown", ""),
    )


def _end(tx: db.Transaction, worker: Worker) -> DrainEnd:
    """Return what was left when the drain of a worker ended; nothing where it has not."""
    over_at = worker.drain_finished_at
    ended = events.latest(tx, 1, EventFilter([worker.id], [EventKind.DRAIN_FINISHED])) if over_at else []
    since = worker.drain_requested_at
    found = [event.details_as(DrainEnd) for event in ended if since and event.at and event.at >= since]
    return found[0] if found else DrainEnd(left=0, services=[], overdue=False)


def _reasons(off: Sequence[Migration], left: Sequence[str]) -> list[str]:
    """Return why containers have not moved, for the first few that have not. Of those that are left at the end, the
    deadline came before the migration where there is none."""
    reasons = {
        migration.service_name: migration.reason
        for migration in off
        if migration.reason and migration.state is not MigrationState.COMPLETED
    }
    passed = {name: OVERDUE for name in left if name not in reasons}
    return [f"{name}: {reason}" for name, reason in (reasons | passed).items()][:MOST_REASONS]
