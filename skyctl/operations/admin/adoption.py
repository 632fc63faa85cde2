"""Take services of the swarm under management where they run, and give them back as they were."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Actor, Capacity, Event
from skyctl.domain.engine import EngineNode, EngineService
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable, Refused, ServiceNotFound
from skyctl.domain.event_details import ServiceRef
from skyctl.domain.events import EventKind
from skyctl.domain.states import EvenIf, ServiceMode, ServiceStatus
from skyctl.domain.workloads import Adoptable, Organization, Service, ServiceSpec
from skyctl.operations.shared import image_volumes, owners
from skyctl.operations.shared.context import Context
from skyctl.rules import fit, local_state, owner_specs
from skyctl.rules import services as rules
from skyctl.rules.tasks import runs
from skyctl.store import deployments, events, migrations, services, workers
from skyctl.store import owner_specs as stored_specs


class Homes(NamedTuple):
    """The nodes of the swarm, whose they are, what the workers are called, and the panel's services by their ids."""

    nodes: Mapping[str, EngineNode]
    by_node: Mapping[str, UUID]
    names: Mapping[UUID, str]
    of_panel: Mapping[str, str]


def adoptable(context: Context, limits: Capacity = Capacity(), even_if: Collection[EvenIf] = ()) -> list[Adoptable]:
    """Return the services of the engine that skyctl does not manage, by name, each with the obstacle to adopting it,
    unless it is one of `even_if`.

    A limit over 0 takes the place of the engine's. Raises EngineUnavailable.
    """
    observation = context.engine().observe()
    with context.db.transaction() as tx:
        managed = services.engine_ids(tx)
        unmanaged = {each.id: each for each in observation.services.values() if each.id not in managed}
        others = image_volumes.known_of(tx, unmanaged)
        by_node, of_panel = workers.by_node(tx, observation.nodes), services.left_to_the_panel(tx)
        homes = Homes(observation.nodes, by_node, workers.names_of(tx), of_panel)
    found = [_adoptable(service, homes, limits) for service in sorted(others.values(), key=lambda each: each.name)]
    return [replace(each, obstacle="") if each.even_if in even_if else each for each in found]


def chosen(found: Sequence[Adoptable], names: Sequence[str], stack: str | None) -> list[Adoptable]:
    """Return those that have these names or ids in the engine, or are of the stack; all where neither is given. Raises
    ServiceNotFound."""
    for name in names:
        if not any(name in (each.engine.name, each.engine.id) for each in found):
            raise ServiceNotFound(
                f"the engine has no service {name!r} that is not under management", "see `skyctl services adopt`"
            )
    if names:
        return [each for each in found if each.engine.name in names or each.engine.id in names]
    if stack is not None and not any(each.engine.stack == stack for each in found):
        raise ServiceNotFound(f"no service of a stack {stack!r} is not under management", "see `docker stack ls`")
    return [each for each in found if stack in (None, each.engine.stack)]


def _adoptable(service: EngineService, homes: Homes, limits: Capacity) -> Adoptable:
    node_id = next((task.node_id for task in service.tasks if runs(task) and task.node_id), None)
    is_one = service.replicas == 1
    worker_id = homes.by_node.get(node_id or "") if is_one else None
    hostname = homes.nodes[node_id].hostname if is_one and node_id and node_id in homes.nodes else ""
    obstacle, even_if = _obstacle(service, homes, node_id)
    name = homes.names.get(worker_id) if worker_id else None
    return Adoptable(
        service, hostname, worker_id, name, rules.adopted_limits(service.limits, limits), obstacle, even_if
    )


def _obstacle(service: EngineService, homes: Homes, node_id: str | None) -> tuple[str, EvenIf | None]:
    """Return what speaks against adopting a service, empty for nothing, and the word by which it is all the same."""
    if owner := homes.of_panel.get(service.labels.get(rules.SERVICE_LABEL, "")):
        return f"the panel deploys it, as its service {owner}", None
    if service.mode is not ServiceMode.REPLICATED:
        return ("it is global" if service.mode is ServiceMode.GLOBAL else "it is a job"), None
    if node_id is None:
        return "it does not run", None
    if service.replicas == 1 and node_id not in homes.by_node:
        hostname = homes.nodes[node_id].hostname if node_id in homes.nodes else node_id
        return f"its node {hostname} is no worker: see `skyctl workers install-script`", None
    asks = fit.unpinned(service.requirements)
    fitting = [node for node in homes.nodes.values() if not fit.unsuited(asks, node)]
    if len(fitting) < 2:
        why = ", ".join(asks.constraints) or "of what it asks for"
        return f"no other node would take it: {why}", EvenIf.BOUND
    if kept := local_state.kept(service):
        places = ", ".join(mount.place for mount in kept)
        return f"it keeps data on its node, which would not move with it: {places}", EvenIf.LOCAL_DATA
    return "", None


def adopt(
    context: Context, actor: Actor, organization: Organization, candidates: Collection[Adoptable]
) -> list[tuple[Adoptable, str]]:
    """Manage services of the engine from now on, where they run and without a new container; return those that could
    not be adopted, and why."""
    trouble = []
    for candidate in candidates:
        try:
            _adopt(context, actor, organization, candidate)
        except (EngineRefused, Refused) as error:
            trouble.append((candidate, error.message))
    return trouble


def _adopt(context: Context, actor: Actor, organization: Organization, adopted: Adoptable) -> None:
    engine_service = adopted.engine
    if adopted.obstacle:
        raise Refused(f"{engine_service.name}: {adopted.obstacle}", "see `skyctl services adopt --dry-run`")
    service = _write_down(context, actor, organization, adopted)
    node_id = next(task.node_id for task in engine_service.tasks if runs(task) and task.node_id)
    deployment_id = service.current.id if service.current else service.id
    try:
        ours = rules.engine_spec(service, deployment_id, node_id).labels
        _mark(context, engine_service, ours, node_id if engine_service.replicas == 1 else None)
    except (EngineRefused, EngineUnavailable):
        with context.db.transaction() as tx:
            services.delete(tx, service.id)
        raise


def _write_down(context: Context, actor: Actor, organization: Organization, adopted: Adoptable) -> Service:
    engine_service, slug = adopted.engine, rules.slug(adopted.engine.name)
    labels = {key: value for key, value in engine_service.labels.items() if not key.startswith(owner_specs.OUR_LABELS)}
    spec = ServiceSpec(
        engine_service.name,
        engine_service.image,
        adopted.limits,
        endpoint_mode=engine_service.endpoint_mode,
        labels=labels,
        replicas=engine_service.replicas or 1,
        adopted=True,
    )
    where = (adopted.worker_id, adopted.worker_name)
    with context.recording() as tx:
        if services.by_slug(tx, organization.id, slug):
            raise Refused(
                f"{organization.slug} has a service {slug!r} already", "remove one of them, or give another --org"
            )
        service_id = services.save(tx, organization.id, slug, spec)
        deployment_id = deployments.insert_adopted(
            tx, service_id, adopted.worker_id, engine_service.image, engine_service.id
        )
        services.make_current(tx, service_id, deployment_id, ServiceStatus.RUNNING)
        details = ServiceRef(serviceId=str(service_id), serviceName=spec.name, deploymentId=str(deployment_id))
        adoption = Event(EventKind.SERVICE_ADOPTED, *where, actor.name, reason=spec.name, details=details)
        events.record(tx, adoption, actor)
        return _existing(services.get(tx, service_id), service_id)


def _mark(context: Context, service: EngineService, labels: Mapping[str, str], node_id: str | None) -> None:
    """Give a service our labels, and pin it where a node is given; what its owner has is kept before."""
    document = context.engine().read(service.id)
    if document is None or document.version != service.version:
        now = document.version if document else "none"
        raise EngineConflict(f"{service.name} is of version {now} by now, not {service.version}")
    with context.db.transaction() as tx:
        owners.keep(tx, service.id, document)
    context.engine().write(service.id, service.version, owner_specs.adopted(document.spec, labels, node_id))


def release(context: Context, service_id: UUID, actor: Actor) -> Service:
    """Give a service back to the swarm as it would be if its owner alone had changed it: it runs on, and is not managed
    any more.

    Raises ServiceNotFound, Refused where it is being moved, EngineConflict, EngineRefused, EngineUnavailable.
    """
    with context.db.transaction() as tx:
        service = _existing(services.get(tx, service_id), service_id)
        swarm_service_id = service.current.swarm_service_id if service.current else None
        moving = migrations.moving(tx, swarm_service_id) if swarm_service_id else None
        kept = stored_specs.get(tx, swarm_service_id) if swarm_service_id else None
    if moving:
        raise Refused(f"{service.spec.name} is being moved", f"wait for it, see `skyctl migrations show {moving.id}`")
    document = context.engine().read(swarm_service_id) if swarm_service_id else None
    if document and not rules.is_ours(document.spec.get("Labels") or {}, service_id):
        document = None  # it was released already, or is another's
    if document and swarm_service_id:
        owned = kept.spec if kept and service.spec.adopted else owner_specs.bare(document.spec)
        spec = owner_specs.released(document.spec, owned, kept.excluded if kept else ())
        context.engine().write(swarm_service_id, document.version, spec)
    with context.recording() as tx:
        migrations.cancel_of_service(tx, service_id, f"the service was released by {actor.name}")
        services.delete(tx, service_id)
        if swarm_service_id:
            stored_specs.forget(tx, swarm_service_id)
        where = (service.current.worker_id, service.current.worker_name) if service.current else (None, None)
        details = ServiceRef(serviceId=str(service_id), serviceName=service.spec.name)
        event = Event(EventKind.SERVICE_RELEASED, *where, actor.name, reason=service.spec.name, details=details)
        events.record(tx, event, actor)
    return service


def _existing(service: Service | None, service_id: UUID) -> Service:
    if service is None:
        raise ServiceNotFound(f"there is no service {service_id}", "see `skyctl services list`")
    return service
