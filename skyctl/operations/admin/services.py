"""Stories of services: deploy, list, look at, remove, and take existing ones of the engine under management."""

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
from skyctl.domain.workloads import (
    Adoptable,
    Deployment,
    Migration,
    MigrationPolicy,
    Organization,
    Service,
    ServicePage,
    ServiceSpec,
    ServiceStatus,
)
from skyctl.operations.shared.context import Context
from skyctl.rules import services as rules
from skyctl.rules.tasks import runs
from skyctl.store import db, events, migrations, organizations, services, workers

SHORTEST_PREFIX = 4
DEFAULT_ORGANIZATION = "default"


def list_services(
    context: Context,
    *,
    organization: Organization | None = None,
    worker_id: UUID | None = None,
    limit: int = 100,
    offset: int = 0,
) -> ServicePage:
    """One page of the services, by organization and name."""
    with context.db.transaction() as tx:
        found, total = services.page(tx, organization.id if organization else None, worker_id, limit, offset)
        return ServicePage(found, total, db.now(tx))


def history(context: Context, service_id: UUID) -> tuple[list[Deployment], list[Migration]]:
    """The deployments and the migrations of a service, the latest first."""
    with context.db.transaction() as tx:
        return services.deployments_of(tx, service_id), migrations.of_service(tx, service_id)


def remove(context: Context, service_id: UUID, actor: Actor) -> Service:
    """Remove a service from the engine, and from the list. Raises ServiceNotFound, EngineUnavailable."""
    with context.db.transaction() as tx:
        service = _known(services.get(tx, service_id), service_id)
    if swarm_service_id := _swarm_service_id(service):
        context.engine().remove(swarm_service_id)
    with context.db.transaction() as tx:
        events.lock(tx)
        migrations.cancel_of_service(tx, service_id, f"the service was removed by {actor.name}")
        services.delete(tx, service_id)
        current, details = service.current, ServiceRef(serviceId=str(service_id), serviceName=service.spec.name)
        where = (current.worker_id, current.worker_name) if current else (None, None)
        events.record(
            tx, Event(EventKind.SERVICE_REMOVED, *where, actor.name, reason=service.spec.name, details=details), actor
        )
    return service


def existing(context: Context, organization: Organization, name: str) -> Service | None:
    """The service of this organization that `deploy` of this name would change."""
    with context.db.transaction() as tx:
        return services.by_slug(tx, organization.id, rules.slug(name))


def organization(context: Context, reference: str | None, *, make: bool = False, dry_run: bool = False) -> Organization:
    """The organization of an id or slug; without one, the only one, which `make` makes where there is none, but for a
    dry run.

    Raises OrganizationNotFound, or ValidationError where there are several.
    """
    with context.db.transaction() as tx:
        found = organizations.matching_organizations(tx, reference)
        if not found and make and reference in (None, DEFAULT_ORGANIZATION):
            if dry_run:
                return Organization(uuid4(), DEFAULT_ORGANIZATION, DEFAULT_ORGANIZATION, MigrationPolicy.AUTOMATIC)
            return organizations.insert_organization(tx, DEFAULT_ORGANIZATION)
    if not found:
        known = "" if reference is None else f" {reference!r}"
        raise OrganizationNotFound(
            f"there is no organization{known}", "the panel makes them; or `services deploy` without --org"
        )
    if len(found) > 1:
        several = ", ".join(each.slug for each in found[:20])
        raise ValidationError(f"there are several organizations: {several}", "give one of them: --org")
    return found[0]


def adoptable(context: Context, limits: Capacity = Capacity()) -> list[Adoptable]:
    """The services of the engine that are not under management, by name, and what speaks against each.

    Of the limits, those over 0 are given, instead of what the engine has. Raises EngineUnavailable.
    """
    seen = context.engine().observe()
    with context.db.transaction() as tx:
        managed = services.engine_ids(tx)
        by_node, names = workers.by_node(tx, seen.nodes), workers.names_of(tx)
    others = [each for each in seen.services.values() if each.id not in managed]
    return [_adoptable(each, seen.nodes, by_node, names, limits) for each in sorted(others, key=lambda each: each.name)]


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
    context: Context, actor: Actor, organization: Organization, those: Collection[Adoptable]
) -> list[tuple[Adoptable, str]]:
    """Take services of the engine under management where they run, without a new container; those that could not be,
    and why."""
    trouble = []
    for each in those:
        try:
            _adopt(context, actor, organization, each)
        except (EngineRefused, Refused) as error:
            trouble.append((each, error.message))
    return trouble


def _adopt(context: Context, actor: Actor, organization: Organization, adopted: Adoptable) -> None:
    found, worker_id = adopted.engine, adopted.worker_id
    slug = rules.slug(found.name)
    if adopted.obstacle or worker_id is None:
        raise Refused(f"{found.name}: {adopted.obstacle}", "see `skyctl services adopt --dry-run`")
    labels = {key: value for key, value in found.labels.items() if not key.startswith("skypanel.")}
    spec = ServiceSpec(
        found.name, found.image, adopted.limits, endpoint_mode=found.endpoint_mode, labels=labels, adopted=True
    )
    with context.db.transaction() as tx:
        events.lock(tx)
        if services.by_slug(tx, organization.id, slug):
            raise Refused(
                f"{organization.slug} has a service {slug!r} already", "remove one of them, or give another --org"
            )
        service_id = services.save(tx, organization.id, slug, spec)
        deployment_id = services.insert_adopted(tx, service_id, worker_id, found.image, found.id)
        services.make_current(tx, service_id, deployment_id, ServiceStatus.RUNNING)
        details = ServiceRef(serviceId=str(service_id), serviceName=found.name, deploymentId=str(deployment_id))
        adoption = Event(
            EventKind.SERVICE_ADOPTED, worker_id, adopted.worker_name, actor.name, reason=found.name, details=details
        )
        events.record(tx, adoption, actor)
        service = _known(services.get(tx, service_id), service_id)
    node_id = next(task.node_id for task in found.tasks if runs(task) and task.node_id)
    try:
        ours = rules.engine_spec(service, deployment_id, node_id).labels
        context.engine().move(found.id, found.version, node_id, ours)
    except (EngineRefused, EngineUnavailable):
        with context.db.transaction() as tx:
            services.delete(tx, service_id)
        raise


def names_from(context: Context, prefix: str) -> Sequence[str]:
    """The names of services that begin so, for completion."""
    with context.db.transaction() as tx:
        return services.names(tx, prefix)


def _swarm_service_id(service: Service | None) -> str | None:
    return service.current.swarm_service_id if service and service.current else None


def _known(service: Service | None, service_id: UUID) -> Service:
    if service is None:
        raise ServiceNotFound(f"there is no service {service_id}", "see `skyctl services list`")
    return service
