"""Places for containers: the workers as they are, what is reserved on them, and the placement rule."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from skyctl.domain.cluster import Capacity, HealthPolicy
from skyctl.domain.engine import EngineNode
from skyctl.domain.workloads import Candidate, Demand, Placement, Refusal, ServiceSpec
from skyctl.rules import placement
from skyctl.store import db, deployments, workers

TO_BE_DRAINED = "to be drained"
NODE_UNKNOWN = "its node is not in the swarm"
NODE_DOWN = "its node is down"
NODE_CLOSED = "its node takes nothing new"


def demand(
    demand_id: UUID, spec: ServiceSpec, source: UUID | None = None, avoid: frozenset[UUID] = frozenset()
) -> Demand:
    """Return what a service asks of a place."""
    return Demand(demand_id, spec.limits, source, avoid, spec.region, spec.pool, spec.spread)


def plan(
    tx: db.Transaction,
    demands: Sequence[Demand],
    nodes: Mapping[str, EngineNode],
    policy: HealthPolicy,
    *,
    closed: Collection[UUID] = (),
    only: Collection[UUID] | None = None,
) -> list[Placement | Refusal]:
    """Return a place for each container, or why there is none: on no worker that is `closed`, and on `only` these where
    they are given.

    A caller that writes the places down holds the event log's lock already, so that nobody else takes the same room.
    """
    return placement.plan(demands, candidates(tx, nodes, closed=closed, only=only), policy)


def candidates(
    tx: db.Transaction,
    nodes: Mapping[str, EngineNode],
    *,
    closed: Collection[UUID] = (),
    only: Collection[UUID] | None = None,
) -> list[Candidate]:
    """Return every worker, or only these, as the placement rule takes them."""
    reserved, siblings = deployments.reserved(tx, only)
    nothing = Capacity()
    return [
        Candidate(
            worker,
            reserved.get(worker.id, nothing),
            siblings.get(worker.id, {}),
            TO_BE_DRAINED if worker.id in closed else _obstacle(worker.swarm_node_id, nodes),
        )
        for worker in workers.everyone(tx, only)
    ]


def _obstacle(node_id: str | None, nodes: Mapping[str, EngineNode]) -> str:
    """Return why the engine would not start a container on a worker; empty where it would."""
    if node_id is None:
        return ""  # the rule itself refuses such a worker
    node = nodes.get(node_id)
    if node is None:
        return NODE_UNKNOWN
    if not node.is_up:
        return NODE_DOWN
    return "" if node.availability == "active" else NODE_CLOSED
