"""List, show and remove services, and adopt services that the engine runs already."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID, uuid4

from skyctl.domain.cluster import Actor, Capacity, Event
from skyctl.domain.engine import EngineNode, EngineService
from skyctl.domain.errors import (
    EngineRefused,
    EngineUnavailable,
    OrganizationNotFound,
    Refused,
    ServiceNotFound,
    ValidationError,
)
from skyctl.domain.events import EventKind, ServiceRef
from skyctl.domain.states import MigrationPolicy, ServiceStatus
from skyctl.domain.workloads import Adoptable, Deployment, Migration, Organization, Service, ServicePage, ServiceSpec
from skyctl.operations.shared.context import Context
from skyctl.rules import services as rules
from skyctl.rules.tasks import runs
from skyctl.store import db, deployments, events, migrations, organizations, services, workers

DEFAULT_ORGANIZATION = "default"
HISTORY = 50


def list_services(
    context: Context,
    *,
    organization: Organization | None = None,
    worker_id: UUID | None = None,
    limit: int = 100,
    offset: int = 0,
) -> ServicePage:
    """Return one page of the services, by organization and name."""
    with context.db.transaction() as tx:
        page, total = services.page(tx, organization.id if organization else None, worker_id, limit, offset)
        return ServicePage(page, total, db.now(tx))


def history(context: Context, service_id: UUID) -> tuple[list[Deployment], list[Migration]]:
    """Return the last 50 deployments and migrations of a service, the latest first."""
    with context.db.transaction() as tx:
        return deployments.of_service(tx, service_id, HISTORY), migrations.of_service(tx, service_id, HISTORY)


def remove(context: Context, service_id: UUID, actor: Actor) -> Service:
    """Remove a service from the engine, and from the list; what is deployed of it at the same moment goes as well. What
    the engine has under its id and is another's is left.

    Raises ServiceNotFound, EngineUnavailable.
    """
    with context.db.transaction() as tx:
        service = _existing(services.get(tx, service_id), service_id)
    while True:
        is_foreign = False
        if removed_id := _swarm_service_id(service):
            engine = context.engine()
            found = engine.observe([removed_id]).services.get(removed_id)
            is_foreign = found is not None and not rules.is_ours(found.labels, service.id)
            if not is_foreign:
                engine.remove(removed_id)
        with context.recording() as tx:
            now = services.get(tx, service_id, lock=True)
            if now is None or _swarm_service_id(now) in (None, removed_id):
                _delete(tx, service, actor, left=rules.NOT_OURS if is_foreign else "")
                return service
        service = now


def _delete(tx: db.Transaction, service: Service, actor: Actor, *, left: str) -> None:
    migrations.cancel_of_service(tx, service.id, f"the service was removed by {actor.name}")
    services.delete(tx, service.id)
    current, details = service.current, ServiceRef(serviceId=str(service.id), serviceName=service.spec.name)
    where = (current.worker_id, current.worker_name) if current else (None, None)
    reason = service.spec.name + (f": {left}, and was left" if left else "")
    events.record(tx, Event(EventKind.SERVICE_REMOVED, *where, actor.name, reason=reason, details=details), actor)


def existing(context: Context, organization: Organization, name: str) -> Service | None:
    """Return the service of this organization that `deploy` of this name would change."""
    with context.db.transaction() as tx:
        return services.by_slug(tx, organization.id, rules.slug(name))


def organization(context: Context, reference: str | None, *, make: bool = False, dry_run: bool = False) -> Organization:
    """Return the organization of an id or slug; without a reference, the only one. Where there is none, `make` creates
    the default one, except in a dry run.

    Raises OrganizationNotFound, or ValidationError where there are several.
    """
    with context.db.transaction() as tx:
        matching = organizations.matching_organizations(tx, reference)
        if not matching and make and reference in (None, DEFAULT_ORGANIZATION):
            if dry_run:
                return Organization(uuid4(), DEFAULT_ORGANIZATION, DEFAULT_ORGANIZATION, MigrationPolicy.AUTOMATIC)
            return organizations.insert_organization(tx, DEFAULT_ORGANIZATION)
    if not matching:
        name = "" if reference is None else f" {reference!r}"
        raise OrganizationNotFound(
            f"there is no organization{name}", "the panel makes them; or `services deploy` without --org"
        )
    if len(matching) > 1:
        several = ", ".join(organization.slug for organization in matching[:20])
        raise ValidationError(f"there are several organizations: {several}", "give one of them: --org")
    return matching[0]


def adoptable(context: Context, limits: Capacity = Capacity()) -> list[Adoptable]:
    """Return the services of the engine that skyctl does not manage, by name, each with the obstacle to adopting it.

    A limit over 0 takes the place of the engine's. Raises EngineUnavailable.
    """
    observation = context.engine().observe()
    with context.db.transaction() as tx:
        managed = services.engine_ids(tx)
        by_node, names = workers.by_node(tx, observation.nodes), workers.names_of(tx)
    others = [service for service in observation.services.values() if service.id not in managed]
    return [
        _adoptable(service, observation.nodes, by_node, names, limits)
        for service in sorted(others, key=lambda service: service.name)
    ]


def _adoptable(
    service: EngineService,
    nodes: Mapping[str, EngineNode],
    by_node: Mapping[str, UUID],
    names: Mapping[UUID, str],
    limits: Capacity,
) -> Adoptable:
    node_id = next((task.node_id for task in service.tasks if runs(task) and task.node_id), None)
    worker_id = by_node.get(node_id or "")
    hostname = nodes[node_id].hostname if node_id in nodes and node_id else ""
    if service.replicas != 1:
        obstacle = "it is global" if service.replicas is None else f"it has {service.replicas} replicas, not 1"
    elif node_id is None:
        obstacle = "it does not run"
    elif worker_id is None:
        obstacle = f"its node {hostname} is no worker: see `skyctl workers install-script`"
    elif service.bound_by:
        obstacle = f"it is bound to its node and could not move: {', '.join(service.bound_by)}"
    elif service.local_mounts:
        obstacle = f"it keeps data on its node, which would not move with it: {', '.join(service.local_mounts)}"
    else:
        obstacle = ""
    name = names.get(worker_id) if worker_id else None
    return Adoptable(service, hostname, worker_id, name, rules.adopted_limits(service.limits, limits), obstacle)


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
    engine_service, worker_id = adopted.engine, adopted.worker_id
    slug = rules.slug(engine_service.name)
    if adopted.obstacle or worker_id is None:
        raise Refused(f"{engine_service.name}: {adopted.obstacle}", "see `skyctl services adopt --dry-run`")
    labels = {key: value for key, value in engine_service.labels.items() if not key.startswith("skypanel.")}
    spec = ServiceSpec(
        engine_service.name,
        engine_service.image,
        adopted.limits,
        endpoint_mode=engine_service.endpoint_mode,
        labels=labels,
        adopted=True,
    )
    with context.recording() as tx:
        if services.by_slug(tx, organization.id, slug):
            raise Refused(
                f"{organization.slug} has a service {slug!r} already", "remove one of them, or give another --org"
            )
        service_id = services.save(tx, organization.id, slug, spec)
        deployment_id = deployments.insert_adopted(tx, service_id, worker_id, engine_service.image, engine_service.id)
        services.make_current(tx, service_id, deployment_id, ServiceStatus.RUNNING)
        details = ServiceRef(
            serviceId=str(service_id), serviceName=engine_service.name, deploymentId=str(deployment_id)
        )
        adoption = Event(
            EventKind.SERVICE_ADOPTED,
            worker_id,
            adopted.worker_name,
            actor.name,
            reason=engine_service.name,
            details=details,
        )
        events.record(tx, adoption, actor)
        service = _existing(services.get(tx, service_id), service_id)
    node_id = next(task.node_id for task in engine_service.tasks if runs(task) and task.node_id)
    try:
        ours = rules.engine_spec(service, deployment_id, node_id).labels
        context.engine().move(engine_service.id, engine_service.version, node_id, ours)
    except (EngineRefused, EngineUnavailable):
        with context.db.transaction() as tx:
            services.delete(tx, service_id)
        raise


def references_from(context: Context, prefix: str) -> Sequence[str]:
    """Return the services that begin with a prefix, for completion: by name where that is plain, else by id."""
    with context.db.transaction() as tx:
        return services.references(tx, prefix)


def _swarm_service_id(service: Service | None) -> str | None:
    return service.current.swarm_service_id if service and service.current else None


def _existing(service: Service | None, service_id: UUID) -> Service:
    if service is None:
        raise ServiceNotFound(f"there is no service {service_id}", "see `skyctl services list`")
    return service
