"""What a drain would do: how each service on a worker would be moved, where it would go, and what would be left."""

from collections.abc import Sequence
from uuid import UUID

from skyctl.domain.cluster import Worker
from skyctl.domain.drains import BY_SWARM, STOPS_LAST, DrainOptions, Planned
from skyctl.domain.engine import EngineService
from skyctl.domain.states import ServiceMode
from skyctl.domain.workloads import Placement, Refusal, Service
from skyctl.operations.shared import candidates, image_volumes
from skyctl.operations.shared.candidates import Ground
from skyctl.operations.shared.context import Context
from skyctl.rules import exclusions, local_state
from skyctl.rules.local_state import Way
from skyctl.rules.tasks import is_on
from skyctl.store import services, workers


def plan(context: Context, worker_ids: Sequence[UUID], drain_options: DrainOptions = DrainOptions()) -> list[Planned]:
    """Return what would become of the containers of these workers if all of them were emptied at once.

    Nothing is changed. Raises EngineUnavailable.
    """
    ground = candidates.ground(context.engine().observe())
    with context.db.transaction() as tx:
        ground = ground._replace(swarm=image_volumes.known(tx, ground.swarm))
        leaving = services.on_workers(tx, worker_ids)
        demands = [candidates.move_demand(service, ground) for service in leaving]
        places = candidates.plan(tx, demands, ground, context.health, closed=worker_ids)
        names, drained = workers.names_of(tx), workers.everyone(tx, worker_ids)
    ours = [
        _of_ours(service, place, names, ground, drain_options) for service, place in zip(leaving, places, strict=True)
    ]
    managed = {service.current.swarm_service_id for service in leaving if service.current}
    others = [
        _of_others(service, worker, ground, drain_options)
        for worker in drained
        for service in sorted(ground.swarm.services.values(), key=lambda service: service.name)
        if service.id not in managed and _count(service, worker)
    ]
    return [*ours, *others]


def _of_ours(
    service: Service, place: Placement | Refusal, names: dict[UUID, str], ground: Ground, drain_options: DrainOptions
) -> Planned:
    source = service.current.worker_name if service.current else None
    engine = ground.swarm.services.get((service.current.swarm_service_id if service.current else None) or "")
    way, reason = Way.START_FIRST, place.reason
    if engine:
        way, how = local_state.moving(
            local_state.leaving(engine, engine.node_id), moves_local_data=drain_options.move_local_data
        )
        reason = how if way is Way.STAYS else reason
        reason += f"; {how}" if way is not Way.STAYS and isinstance(place, Placement) else ""
    target = names.get(place.worker_id) if isinstance(place, Placement) and way is not Way.STAYS else None
    return Planned(service.spec.name, service.organization, source, target, reason, way=way.value)


def _of_others(service: EngineService, worker: Worker, ground: Ground, drain_options: DrainOptions) -> Planned:
    target, way, reason = _fate(service, worker, ground, drain_options)
    number = _count(service, worker)
    return Planned(service.name, None, worker.name, target, reason, way=way, containers=number)


def _fate(
    service: EngineService, worker: Worker, ground: Ground, drain_options: DrainOptions
) -> tuple[str | None, str, str]:
    """Return where a service that others deployed would go, how, and why."""
    if service.mode is ServiceMode.GLOBAL and not drain_options.keep_global:
        return None, STOPS_LAST, "it runs on every node, and is back when the worker is"
    if service.mode is not ServiceMode.REPLICATED:
        return None, Way.STAYS.value, "it runs on every node" if service.mode is ServiceMode.GLOBAL else "it is a job"
    if service.node_id is not None:
        return None, Way.STAYS.value, "its owner has pinned it to this node"
    leaving = local_state.leaving(service, worker.confirmed_node)
    way, how = local_state.moving(leaving, moves_local_data=drain_options.move_local_data)
    nodes, uses = ground.swarm.nodes, ground.uses
    never = exclusions.nowhere_else(service, worker.confirmed_node, nodes, uses)
    if way is Way.STAYS or never:
        return None, Way.STAYS.value, how if way is Way.STAYS else never
    if waits := exclusions.waits_for(service, worker.confirmed_node, nodes, uses):
        return None, way.value, waits
    return BY_SWARM, way.value, how


def _count(service: EngineService, worker: Worker) -> int:
    """How many containers of a service are on a worker's node, and are to run."""
    tasks = [task for task in service.tasks if is_on(task, worker.confirmed_node) and exclusions.is_wanted(task)]
    return len(tasks) if worker.confirmed_node else 0
