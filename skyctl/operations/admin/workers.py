"""Workers for administrators: list, show, label and remove them; the cluster in figures."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from skyctl.domain.cluster import Actor, ClusterStats, Event, Worker, WorkerPage
from skyctl.domain.errors import (
    EngineElsewhere,
    EngineUnavailable,
    ValidationError,
    WorkerHasContainers,
)
from skyctl.domain.event_details import Labels
from skyctl.domain.events import EventKind
from skyctl.domain.fleets import Place
from skyctl.domain.states import WorkerOrder, WorkerStatus
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leaving import leave_swarm
from skyctl.store import cluster_stats, db, events, leases, listings, swarm, workers


def list_workers(
    context: Context,
    *,
    statuses: Sequence[WorkerStatus] = (),
    regions: Sequence[str] = (),
    pools: Sequence[str] = (),
    search: str | None = None,
    order: WorkerOrder = WorkerOrder.NAME,
    after: str | None = None,
    limit: int | None = 100,
    offset: int = 0,
) -> WorkerPage:
    """Return one page of the workers, all without `limit`; only those that are one of each sequence that is not empty.
    `search` looks in name, hostname, address and id; at their beginnings where it ends with an asterisk.

    `after`: only those that come, in the order of the names, after this worker, by a reference or as the `next` of a
    page. Such a page costs the same wherever it is, and no worker that stays is left out or comes twice because others
    come and go. Raises ValidationError where they are to be in another order, WorkerNotFound.
    """
    if after is not None and order is not WorkerOrder.NAME:
        raise ValidationError(
            f"after: {after!r} is a place among the names, and these are by {order}", "sort by name, or use the offset"
        )
    with context.db.transaction() as tx:
        listed, total, is_least = listings.workers_page(
            tx,
            statuses=statuses,
            regions=regions,
            pools=pools,
            search=search,
            order=order,
            after=None if after is None else _place(tx, after),
            limit=limit,
            offset=offset,
        )
        lead = leases.latest(tx)
        seen = (lead.last_pass_at, lead.leads) if lead else (None, False)
        is_followed = order is WorkerOrder.NAME and len(listed) == limit
        following = str(Place(listed[-1].name, listed[-1].id)) if is_followed else None
        return WorkerPage(tuple(listed), total, limit, offset, db.now(tx), *seen, is_least, following)


def _place(tx: db.Transaction, after: str) -> Place:
    if (place := Place.read(after)) is not None:
        return place
    worker = lookup.worker_of(tx, after)
    return Place(worker.name, worker.id)


def get(context: Context, worker_id: UUID) -> Worker:
    """Return one worker. Raises WorkerNotFound."""
    with context.db.transaction() as tx:
        return lookup.get_worker(tx, worker_id)


def read_at(context: Context) -> datetime:
    """Return the database's time."""
    with context.db.transaction() as tx:
        return db.now(tx)


def check_removable(context: Context, worker: Worker) -> None:
    """Raise WorkerHasContainers where `remove` would."""
    with context.db.transaction() as tx:
        _refuse_occupied(tx, worker)


def remove(context: Context, worker_id: UUID, actor: Actor) -> tuple[Worker, str]:
    """Remove a worker, and its node from the swarm; its token is refused from then on. Return it, and why its node is
    still there, empty where it is not.

    Raises WorkerNotFound, WorkerHasContainers.
    """
    with context.db.transaction() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        _refuse_occupied(tx, worker)
        events.set_actor(tx, actor)
        removal = swarm.ask_removal(tx, worker_id)
        workers.delete(tx, worker_id)
        events.log_activity(tx, [Event(EventKind.REMOVED, worker_id, worker.name, actor.name)], actor)
        db.notify_news(tx)
    return worker, _leave_swarm(context, removal)


def _leave_swarm(context: Context, removal: swarm.NodeRemoval | None) -> str:
    """Remove a worker's node from the swarm; return why that was not done, empty where it was, or the worker is in
    none. A node that it only claims may be another's, and stays. Where this process is not to ask the engine, the
    monitor does it, and says in its log what stays."""
    if removal is None:
        return ""
    try:
        engine = context.engine()
        if engine.state() is None:
            return ""
        stays = leave_swarm(engine, engine.observe(), removal.node_id, is_closed=removal.is_closed)
    except EngineElsewhere:
        return ""
    except EngineUnavailable as error:
        return error.message
    with context.db.transaction() as tx:
        swarm.end_removals(tx, [removal.node_id])
    return stays


def label(context: Context, worker_id: UUID, actor: Actor, labels: dict[str, str]) -> Worker:
    """Set the region or the pool of a worker, which services may ask for; an empty one is taken away.

    Containers that are there already stay. Raises WorkerNotFound.
    """
    with context.db.transaction() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        workers.set_labels(tx, worker_id, labels)
        reason = ", ".join(f"{key} {value}" if value else f"no {key}" for key, value in labels.items())
        events.record(
            tx,
            Event(EventKind.LABELLED, worker_id, worker.name, actor.name, reason=reason, details=_labels(labels)),
            actor,
        )
        db.notify_news(tx)
        return worker


def _labels(labels: Mapping[str, str]) -> Labels:
    details = Labels()
    if "region" in labels:
        details["region"] = labels["region"]
    if "pool" in labels:
        details["pool"] = labels["pool"]
    return details


def note_stopped(context: Context, worker_id: UUID, actor: Actor) -> None:
    """Note that a worker's agent was stopped on purpose, so that nobody waits for its silence to run out.

    Raises WorkerNotFound.
    """
    with context.db.transaction() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        workers.note_stopped(tx, worker_id)
        events.record(tx, Event(EventKind.STOPPED, worker_id, worker.name, actor.name), actor)
        db.notify_news(tx, worker_id)


def stats(context: Context) -> ClusterStats:
    """Return the cluster in figures."""
    with context.db.transaction() as tx:
        return cluster_stats.stats(tx)


def references_from(context: Context, prefix: str) -> list[str]:
    """Return the workers that begin with a prefix, for completion: by name where that is plain, else by id."""
    with context.db.transaction() as tx:
        return workers.references(tx, prefix)


def _refuse_occupied(tx: db.Transaction, worker: Worker) -> None:
    if containers := workers.occupying_deployments(tx, worker.id):
        noun = "container" if containers == 1 else "containers"
        raise WorkerHasContainers(f"{worker.name} still has {containers} {noun}", "drain it first")
