"""Drains from their beginning by the panel to their end: where a worker's node is empty by what the engine shows
and its agent counts, or nothing more moves."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from skyctl.domain.cluster import Event, Worker
from skyctl.domain.engine import EngineNode, NodeTask, Occupant
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.events import DrainEnd, EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.workloads import DrainOptions, Service
from skyctl.operations.shared.leadership import Term
from skyctl.rules.tasks import occupants
from skyctl.store import db, deployments, drains, services, workers

LOOK_SECONDS = 1.0
COUNTED = timedelta(seconds=2)  # an agent counts a moment before it says so
MOST_NAMES = 100
OUTSIDE = "outside of Swarm"
UNCLEAR = "of which nobody can say whose they are"


class Look(NamedTuple):
    """What the engine shows of the nodes of drains that may be over, and why it shows nothing, where it does not."""

    nodes: Mapping[str, EngineNode] = {}
    tasks: Mapping[str, Sequence[NodeTask]] = {}
    trouble: EngineUnavailable | None = None


class Remains(NamedTuple):
    """What is left on a drained worker: services of ours, and the containers of others as they are named; why nobody
    can say what else is there, empty where that is known; whether some of it may yet end, or is not known yet."""

    ours: Sequence[Service]
    others: Mapping[str, int]
    unknown: str
    is_settled: bool


def adopt(tx: db.Transaction, term: Term) -> list[Event]:
    """Request the drains that the panel asked for, which writes a status and no more."""
    asked = drains.said_by_status(tx)
    if asked:
        drains.hold_heartbeats(tx)
    for worker_id in asked:
        drains.request(tx, worker_id, DrainOptions())
    reason = "by its status"
    return [
        Event(EventKind.DRAIN_REQUESTED, worker_id, name, "panel", reason=reason, term=term.number)
        for worker_id, name in asked.items()
    ]


def look(term: Term) -> Look:
    """Return what the engine has on the nodes of the drains that may be over."""
    with term.reading() as tx:
        node_ids = [drained.node_id for drained in drains.ending(tx, timedelta()) if drained.node_id]
    if not node_ids:
        return Look()
    try:
        nodes = term.observe(()).nodes
        return Look(nodes, {node_id: term.tasks_on(node_id) if node_id in nodes else [] for node_id in node_ids})
    except EngineUnavailable as error:
        return Look(trouble=error)


def finish(tx: db.Transaction, term: Term, seen: Look) -> tuple[list[Event], bool]:
    """Note the drains that are over, except those whose last containers are still to be stopped, or that are about to
    run a deployment which can move only once the engine has it. Return the events, and whether another drain is only
    waited for. Two heartbeats after its deadline one ends with what is known."""
    finished, waiting = [], False
    ending, now = drains.ending(tx, 2 * term.context.health.heartbeat_interval), db.now(tx)
    drained_workers = {worker.id: worker for worker in workers.everyone(tx, [drained.worker_id for drained in ending])}
    for drained in ending:
        worker = drained_workers.get(drained.worker_id)
        if worker is None:
            continue
        remains = _remains(tx, worker, drained, seen, now)
        if remains.ours and drained.force:
            continue
        is_asked = drained.node_id is None or drained.node_id in seen.tasks or seen.trouble is not None
        is_pending = not drained.overdue and _is_any_apply_pending(tx, remains.ours)
        if not is_asked or is_pending or not (remains.is_settled or drained.is_late):
            waiting = True
            continue
        finished.append(_over(drained, remains, term))
    drains.note_over(tx, [event.worker_id for event in finished if event.worker_id])
    return finished, waiting


def _remains(tx: db.Transaction, worker: Worker, drained: drains.Drained, seen: Look, now: datetime) -> Remains:
    ours = services.on_workers(tx, [worker.id])
    if drained.node_id is None:
        outside, unknown, _ = _outside(worker, len(ours), None)
        return Remains(ours, {UNCLEAR: outside} if outside else {}, unknown, is_settled=True)
    if seen.trouble:
        return Remains(ours, {}, f"the engine does not answer: {seen.trouble.message}", is_settled=False)
    node = seen.nodes.get(drained.node_id)
    if node and not node.is_up:
        has_failed = worker.status is WorkerStatus.OFFLINE or worker.engine_failed_at is not None
        return Remains(ours, {}, "its node is down", is_settled=has_failed)
    there = occupants(seen.tasks.get(drained.node_id, ()))
    changed_at = _changed_at(tx, drained, sum(occupant.containers for occupant in there), now)
    named = {service.current.swarm_service_id for service in ours if service.current}
    others = {each.name: each.containers for each in there if each.service_id not in named}
    outside, unknown, is_counted = _outside(worker, sum(occupant.counted for occupant in there), changed_at)
    if is_counted:
        others |= {OUTSIDE: outside} if outside else {}
    else:
        unknown = "its agent has not counted since the last container ended"
    is_closed = node is None or node.is_manager or node.availability != "active"
    is_settled = is_closed and is_counted and not _is_any_ending(there, named)
    return Remains(ours, others, unknown, is_settled)


def _changed_at(tx: db.Transaction, drained: drains.Drained, containers: int, now: datetime) -> datetime:
    """Return since when the engine has had as many containers there as now, which is noted."""
    if drained.containers == containers and drained.counted_at:
        return drained.counted_at
    drains.note_containers(tx, drained.worker_id, containers)
    return now


def _is_any_ending(there: Iterable[Occupant], ours: Iterable[str | None]) -> bool:
    return any(occupant.ending for occupant in there if occupant.service_id not in ours)


def _outside(worker: Worker, known: int, changed_at: datetime | None) -> tuple[int, str, bool]:
    """Return how many containers the agent counts beside those that are known, why nobody can say, and whether it has
    counted since the engine's containers there changed last."""
    if worker.status is WorkerStatus.PENDING:
        return 0, "", True
    if worker.status is WorkerStatus.OFFLINE:
        return 0, "its agent is silent", True
    if worker.container_count is None:
        return 0, "its agent does not know how many containers run", True
    outside, heard_at = worker.container_count - known, worker.last_heartbeat_at
    is_counted = changed_at is None or (heard_at is not None and heard_at - changed_at > COUNTED)
    return max(0, outside), "", outside <= 0 or is_counted


def _over(drained: drains.Drained, remains: Remains, term: Term) -> Event:
    names = [service.spec.name for service in remains.ours]
    theirs = sum(remains.others.values())
    details = DrainEnd(
        left=len(names) + theirs,
        services=names[:MOST_NAMES],
        overdue=drained.overdue,
        others=[_named(name, count) for name, count in remains.others.items()][:MOST_NAMES],
        othersCount=theirs,
        unknown=remains.unknown,
    )
    return Event(
        EventKind.DRAIN_FINISHED,
        drained.worker_id,
        drained.name,
        "monitor",
        reason=_outcome(details),
        details=details,
        term=term.number,
    )


def _outcome(end: DrainEnd) -> str:
    left, unknown = end["left"], end.get("unknown")
    if not left and not unknown:
        return "it is empty"
    stays = f"{left} container{'s' * (left != 1)} left, still running" if left else "nothing of ours is left"
    passed = "its deadline has passed: " if left and end["overdue"] else ""
    return f"{passed}{stays}" + (f"; what else runs there nobody can say: {unknown}" if unknown else "")


def _named(name: str, count: int) -> str:
    return name if count == 1 else f"{name} ({count})"


def _is_any_apply_pending(tx: db.Transaction, on_worker: Iterable[Service]) -> bool:
    return any(service.current and deployments.is_apply_pending(tx, service.current.id) for service in on_worker)
