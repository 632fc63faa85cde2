"""Where containers go: the workers as they are, what is reserved on them, and the rule."""

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
    """What a service asks of a place."""
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
    """A place for each of the containers, or why there is none; none of them on the workers that are `closed`, all on
    `only` these.

    Whoever then writes it down holds the log's lock from before, so that nobody else gives the same room away.
    """
    return placement.plan(demands, candidates(tx, nodes, closed=closed, only=only), policy)


def candidates(
    tx: db.Transaction,
    nodes: Mapping[str, EngineNode],
    *,
    closed: Collection[UUID] = (),
    only: Collection[UUID] | None = None,
) -> list[Candidate]:
    """Every worker, or only these, as placement sees it."""
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
    """What the engine says against a worker; empty for nothing."""
    if node_id is None:
        return ""  # the rule says so itself
    node = nodes.get(node_id)
    if node is None:
        return NODE_UNKNOWN
    if not node.is_up:
        return NODE_DOWN
    return "" if node.availability == "active" else NODE_CLOSED
