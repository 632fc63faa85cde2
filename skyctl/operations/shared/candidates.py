"""Places for containers: the workers as they are, what is reserved on them, what Swarm has on their nodes, and the
placement rule."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Capacity, HealthPolicy, Worker
from skyctl.domain.engine import NodeUse, Observation
from skyctl.domain.workloads import Candidate, Demand, Placement, Refusal, Service, ServiceSpec
from skyctl.rules import fit, node_claims, placement
from skyctl.rules import services as rules
from skyctl.rules.tasks import is_on
from skyctl.store import db, deployments, services, workers

TO_BE_DRAINED = "to be drained"
NODE_UNCONFIRMED = "its node is not confirmed"
NODE_UNKNOWN = "its node is not in the swarm"


class Ground(NamedTuple):
    """All that the engine shows at one moment, and what is left of each of its nodes, by the node's id; as if nothing
    of the service `but` were there."""

    swarm: Observation
    uses: Mapping[str, NodeUse]
    but: UUID | None = None


def ground(swarm: Observation, but: Service | None = None) -> Ground:
    """Return what containers can be placed on, by all that the engine shows, as if nothing of one service were there.
    Takes 3 us for each container of the swarm."""
    engine_id = but.current.swarm_service_id if but and but.current else None
    return Ground(swarm, fit.node_uses(swarm, engine_id), but.id if but else None)


def demand(demand_id: UUID, spec: ServiceSpec) -> Demand:
    """Return what a service that is to be deployed asks of a place."""
    return Demand(
        demand_id, spec.limits, region=spec.region, pool=spec.pool, spread=spec.spread, asks=rules.requirements(spec)
    )


def move_demand(service: Service, ground: Ground, avoid: frozenset[UUID] = frozenset()) -> Demand:
    """Return what a service asks of a place to which it is to be moved: of its node what the engine's service does, its
    pin aside."""
    wanted, current = swarm_demand(service, ground), service.current
    source = current.worker_id if current else None
    return replace(wanted, asks=fit.unpinned(wanted.asks), avoid=avoid, source=source)


def swarm_demand(service: Service, ground: Ground) -> Demand:
    """Return what a service asks of any place: of its node what the engine's service does."""
    current, wanted = service.current, demand(service.id, service.spec)
    engine = ground.swarm.services.get(current.swarm_service_id or "") if current else None
    return replace(wanted, asks=engine.requirements, engine_id=engine.id) if engine else wanted


def plan(
    tx: db.Transaction,
    demands: Sequence[Demand],
    ground: Ground,
    policy: HealthPolicy,
    *,
    closed: Collection[UUID] = (),
    only: Collection[UUID] | None = None,
) -> list[Placement | Refusal]:
    """Return a place for each container, or why there is none: on no worker that is `closed`, and on `only` these where
    they are given.

    A caller that writes the places down holds the event log's lock already, so that nobody else takes the same room.
    """
    return placement.plan(demands, candidates(tx, ground, closed=closed, only=only), policy)


def candidates(
    tx: db.Transaction,
    ground: Ground,
    *,
    closed: Collection[UUID] = (),
    only: Collection[UUID] | None = None,
) -> list[Candidate]:
    """Return every worker, or only these, as the placement rule takes them."""
    reserved, everyone = deployments.reserved(tx, only), workers.everyone(tx, only)
    nothing = deployments.Reservations(Capacity(), Capacity(), {})
    uses = _with_arriving(tx, ground, {worker.id: worker.confirmed_node for worker in everyone})
    return [
        Candidate(
            _bounded(worker, ground.swarm),
            held.whole,
            held.siblings,
            TO_BE_DRAINED if worker.id in closed else _obstacle(worker, ground.swarm),
            ground.swarm.nodes.get(worker.confirmed_node or ""),
            uses.get(worker.confirmed_node or ""),
            held.unmeasured,
        )
        for worker in everyone
        for held in [reserved.get(worker.id, nothing)]
    ]


def _with_arriving(tx: db.Transaction, ground: Ground, nodes: Mapping[UUID, str | None]) -> dict[str, NodeUse]:
    """Return what is left of the nodes once what was placed on these workers has arrived: it is written down before the
    engine shows it there."""
    uses, arriving = dict(ground.uses), deployments.arriving(tx)
    by_id = {service.id: service for service in services.fetch(tx, {service_id for service_id, _, _ in arriving})}
    for service_id, worker_id, engine_id in arriving:
        node_id, engine = nodes.get(worker_id), ground.swarm.services.get(engine_id or "")
        is_there = engine is not None and any(is_on(task, node_id) for task in engine.tasks)
        if node_id not in uses or service_id not in by_id or service_id == ground.but or is_there:
            continue
        spec = by_id[service_id].spec
        asks = engine.requirements if engine and spec.adopted else rules.requirements(spec)
        uses[node_id] = fit.with_container(uses[node_id], asks, engine_id or "")
    return uses


def _bounded(worker: Worker, swarm: Observation) -> Worker:
    """Return a worker with no more than its node has, whatever its host says."""
    node = swarm.nodes.get(worker.confirmed_node or "")
    return replace(worker, capacity=node_claims.bounded(worker.capacity, node)) if node else worker


def _obstacle(worker: Worker, swarm: Observation) -> str:
    """Return why the engine would not start a container on a worker; empty where it would."""
    if worker.confirmed_node is None:
        return NODE_UNCONFIRMED  # of a worker that claims no node the rule itself says more
    node = swarm.nodes.get(worker.confirmed_node)
    return NODE_UNKNOWN if node is None else fit.unavailable(node)
