"""Drains from their beginning by the panel to their end: where a worker's node is empty by what the engine shows
and its agent counts, or nothing more moves; and what the engine shows of nodes that are to be left."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event, Worker
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import EngineNode, EngineService, NodeTask
from skyctl.domain.errors import EngineRefused, EngineUnavailable
from skyctl.domain.event_details import DrainEnd
from skyctl.domain.events import EventKind
from skyctl.domain.states import ServiceMode
from skyctl.domain.workloads import Service
from skyctl.operations.shared.leadership import Term
from skyctl.rules import drain_ends as rules
from skyctl.rules.rescheduling import is_lost
from skyctl.rules.tasks import occupants
from skyctl.store import db, deployments, drains, rescheduling, services, workers
from skyctl.store.rescheduling import FailedNode

LOOK_SECONDS = 1.0
MOST_NAMES = 100


class Look(NamedTuple):
    """The workers whose drains are not over, each with its node; the failed workers that were not looked at since they
    failed; what the engine shows of these nodes and of the services there, and why it shows nothing, where it does
    not."""

    drained: Mapping[UUID, str] = {}
    failed: Sequence[FailedNode] = ()
    nodes: Mapping[str, EngineNode] = {}
    tasks: Mapping[str, Sequence[NodeTask]] = {}
    services: Mapping[str, EngineService] = {}
    trouble: EngineUnavailable | None = None


class Ends(NamedTuple):
    """The events of drains that are over, whether another one is only waited for, and the nodes on which nothing is
    left but what runs on every node."""

    events: Sequence[Event]
    is_any_waited_for: bool
    to_clear: Sequence[str]


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
    """Return what the engine has on the nodes of the drains that are not over, and of workers that have failed."""
    with term.reading() as tx:
        drained, may_have_lost = drains.open_nodes(tx), rescheduling.failed_nodes(tx)
    if not drained and not may_have_lost:
        return Look()
    try:
        nodes = term.observe(()).nodes  # before the containers: what came before a node was closed is seen
        failed = [each for each in may_have_lost if _is_to_be_seen(each, nodes)]
        asked = {*drained.values(), *(each.node_id for each in failed)}
        if not asked:
            return Look()
        tasks: dict[str, list[NodeTask]] = {node_id: [] for node_id in asked}
        gone = set(drained.values()) - nodes.keys()  # the engine knows nothing of these, and would tell of all
        for each in term.tasks_on(asked - gone):
            tasks[each.task.node_id or ""].append(each)
        services_there = term.observe({each.service_id for there in tasks.values() for each in there}).services
        return Look(drained, failed, nodes, tasks, services_there)
    except EngineUnavailable as error:
        return Look(drained, trouble=error)


def _is_to_be_seen(failed: FailedNode, nodes: Mapping[str, EngineNode]) -> bool:
    """Tell whether something may have changed on a failed worker's node since it was last seen: it was never, or the
    swarm has lost it meanwhile."""
    return is_lost(nodes.get(failed.node_id)) or not (failed.is_seen or failed.is_drained)


def finish(tx: db.Transaction, term: Term, seen: Look) -> Ends:
    """Note the drains that are over, except those whose last containers are still to be stopped, or that are about to
    run a deployment which can move only once the engine has it. Two heartbeats after its deadline one ends with what is
    known."""
    finished, is_any_waited_for, to_clear = [], False, []
    ending, now = drains.ending(tx, 2 * term.context.health.heartbeat_interval), db.now(tx)
    ids = [drained.worker_id for drained in ending]
    drained_workers = {worker.id: worker for worker in workers.everyone(tx, ids)}
    there: dict[UUID | None, list[Service]] = {}
    for service in services.on_workers(tx, ids) if ids else ():
        there.setdefault(service.current.worker_id if service.current else None, []).append(service)
    for drained in ending:
        worker = drained_workers.get(drained.worker_id)
        if worker is None:
            continue
        is_asked = drained.node_id is None or drained.node_id in seen.tasks or seen.trouble is not None
        if not is_asked:  # nothing is concluded, nor noted, of a node at which nobody has looked
            is_any_waited_for = True
            continue
        remains = _remains(tx, worker, drained, seen, now, there.get(worker.id, []))
        if remains.ours and drained.force:
            continue
        is_pending = not drained.overdue and _is_any_apply_pending(tx, remains.ours)
        clears = remains.is_settled and _runs_everywhere(drained, remains, seen)
        to_clear += [drained.node_id] * (clears and drained.node_id is not None)
        if is_pending or clears or not (remains.is_settled or drained.is_late):
            is_any_waited_for = True
            continue
        finished.append(_over(drained, remains, term))
    drains.note_over(tx, [event.worker_id for event in finished if event.worker_id])
    return Ends(finished, is_any_waited_for, [node_id for node_id in to_clear if node_id])


def clear(term: Term, node_ids: Iterable[str]) -> None:
    """Have what runs on every node stopped on these, of which nothing else is left."""
    for node_id in node_ids:
        with suppress(EngineRefused):  # the node has left the swarm
            term.engine().set_availability(node_id, "drain")


def _runs_everywhere(drained: drains.Drained, remains: rules.Remains, seen: Look) -> bool:
    """Tell whether all that is left on a node that we closed is what runs on every node, which its drain stops at the
    end."""
    node = seen.nodes.get(drained.node_id or "")
    if node is None or drained.keep_global or not drained.is_closed_by_us or node.availability != "pause":
        return False
    everywhere = [service.id for service in seen.services.values() if service.mode is ServiceMode.GLOBAL]
    there = occupants(seen.tasks.get(node.id, ()))
    return not remains.ours and rules.OUTSIDE not in remains.others and rules.runs_everywhere(there, everywhere)


def _remains(
    tx: db.Transaction,
    worker: Worker,
    drained: drains.Drained,
    seen: Look,
    now: datetime,
    ours: Sequence[Service],
) -> rules.Remains:
    if drained.node_id is None:
        return rules.without_node(worker, ours)
    if seen.trouble:
        return rules.engine_is_silent(ours, seen.trouble.message)
    node = seen.nodes.get(drained.node_id)
    if node and not node.is_up:
        return rules.node_is_down(worker, ours)
    there = occupants(seen.tasks.get(drained.node_id, ()))
    changed_at = _changed_at(tx, drained, sum(occupant.containers for occupant in there), now)
    return rules.remains(worker, node, ours, there, changed_at)


def _changed_at(tx: db.Transaction, drained: drains.Drained, containers: int, now: datetime) -> datetime:
    """Return since when the engine has had as many containers there as now, which is noted."""
    if drained.containers == containers and drained.counted_at:
        return drained.counted_at
    drains.note_containers(tx, drained.worker_id, containers)
    return now


def _over(drained: drains.Drained, remains: rules.Remains, term: Term) -> Event:
    names = [service.spec.name for service in remains.ours]
    theirs = sum(remains.others.values())
    details = DrainEnd(
        left=len(names) + theirs,
        services=names[:MOST_NAMES],
        overdue=drained.overdue,
        others=rules.named(remains.others)[:MOST_NAMES],
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


def _is_any_apply_pending(tx: db.Transaction, on_worker: Iterable[Service]) -> bool:
    return any(service.current and deployments.is_apply_pending(tx, service.current.id) for service in on_worker)
