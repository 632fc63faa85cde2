"""What is left on a drained worker, and whether anybody can say.

    its node was never confirmed      what the agent counts beside what is ours; nobody can say whose that is
    the engine does not answer        nobody can say; it may yet be known
    its node is down                  nobody can say; that is all where the worker has failed
    else                              what the engine has there that has not ended, and what the agent counts beside
                                      that, once it has counted since the engine's number changed last

It may yet change while the node takes something new, a container of others is stopping, or the agent has not counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from skyctl.domain.cluster import Worker
from skyctl.domain.engine import EngineNode, Occupant
from skyctl.domain.states import WorkerStatus
from skyctl.domain.workloads import Service

COUNTED = timedelta(seconds=2)  # an agent counts a moment before it says so
OUTSIDE = "outside of Swarm"
UNCLEAR = "of which nobody can say whose they are"
NOT_COUNTED = "its agent has not counted since the last container ended"


class Remains(NamedTuple):
    """What is left on a drained worker: services of ours, and the containers of others as they are named; why nobody
    can say what else is there, empty where that is known; whether some of it may yet end, or is not known yet."""

    ours: Sequence[Service]
    others: Mapping[str, int]
    unknown: str
    is_settled: bool


def without_node(worker: Worker, ours: Sequence[Service]) -> Remains:
    """Return what is left on a worker whose node was never confirmed."""
    outside, unknown, _ = _outside(worker, len(ours), None)
    return Remains(ours, {UNCLEAR: outside} if outside else {}, unknown, is_settled=True)


def node_is_down(worker: Worker, ours: Sequence[Service]) -> Remains:
    """Return what is left on a worker whose node the swarm does not hear."""
    has_failed = worker.status is WorkerStatus.OFFLINE or worker.engine_failed_at is not None
    return Remains(ours, {}, "its node is down", is_settled=has_failed)


def remains(
    worker: Worker,
    node: EngineNode | None,
    ours: Sequence[Service],
    there: Sequence[Occupant],
    changed_at: datetime,
) -> Remains:
    """Return what is left on a worker, of whose node (None: it has left the swarm) the engine shows what is `there`, as
    many containers as that since `changed_at`."""
    named = {service.current.swarm_service_id for service in ours if service.current}
    theirs = [occupant for occupant in there if occupant.service_id not in named]
    others = {occupant.name: occupant.containers for occupant in theirs}
    outside, unknown, is_counted = _outside(worker, sum(occupant.counted for occupant in there), changed_at)
    if is_counted:
        others |= {OUTSIDE: outside} if outside else {}
    else:
        unknown = NOT_COUNTED
    is_settled = is_closed(node) and is_counted and not any(occupant.ending for occupant in theirs)
    return Remains(ours, others, unknown, is_settled)


def engine_is_silent(ours: Sequence[Service], trouble: str) -> Remains:
    """Return what is left on a worker while the engine does not answer."""
    return Remains(ours, {}, f"the engine does not answer: {trouble}", is_settled=False)


def named(others: Mapping[str, int]) -> list[str]:
    """Return the containers of others in words, by name."""
    return [name if count == 1 else f"{name} ({count})" for name, count in others.items()]


def is_closed(node: EngineNode | None) -> bool:
    """Tell whether a node takes nothing new, or cannot be kept from it."""
    return node is None or node.is_manager or node.availability != "active"


def runs_everywhere(there: Iterable[Occupant], everywhere: Iterable[str]) -> bool:
    """Tell whether all that is on a node is of services that run on every node, by their ids, and something is."""
    ids = {occupant.service_id for occupant in there}
    return bool(ids) and ids <= set(everywhere)


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
