"""Places for containers: the workers as they are, what is reserved on them, and the placement rule."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from skyctl.domain.cluster import Capacity, HealthPolicy, Worker
from skyctl.domain.engine import EngineNode
from skyctl.domain.workloads import Candidate, Demand, Placement, Refusal, ServiceSpec
from skyctl.rules import node_claims, placement
from skyctl.store import db, deployments, workers

TO_BE_DRAINED = "to be drained"
NODE_UNCONFIRMED = "its node is not confirmed"
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
            _bounded(worker, nodes),
            reserved.get(worker.id, nothing),
            siblings.get(worker.id, {}),
            TO_BE_DRAINED if worker.id in closed else _obstacle(worker, nodes),
        )
        for worker in workers.everyone(tx, only)
    ]


def _bounded(worker: Worker, nodes: Mapping[str, EngineNode]) -> Worker:
    """Return a worker with no more than its node has, whatever its host says."""
    node = nodes.get(worker.confirmed_node or "")
    return replace(worker, capacity=node_claims.bounded(worker.capacity, node)) if node else worker


def _obstacle(worker: Worker, nodes: Mapping[str, EngineNode]) -> str:
    """Return why the engine would not start a container on a worker; empty where it would."""
    if worker.confirmed_node is None:
        return NODE_UNCONFIRMED  # of a worker that claims no node the rule itself says more
    node = nodes.get(worker.confirmed_node)
    if node is None:
        return NODE_UNKNOWN
    if not node.is_up:
        return NODE_DOWN
    return "" if node.availability == "active" else NODE_CLOSED
