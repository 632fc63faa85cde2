"""List, show and remove services, and adopt services that the engine runs already."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from skyctl.domain.cluster import Actor, Event
from skyctl.domain.errors import (
    OrganizationNotFound,
    ServiceNotFound,
    ValidationError,
)
from skyctl.domain.event_details import ServiceRef
from skyctl.domain.events import EventKind
from skyctl.domain.states import MigrationPolicy, ServiceOrder, ServiceStatus
from skyctl.domain.workloads import Deployment, Migration, Organization, Service, ServicePage
from skyctl.operations.shared.context import Context
from skyctl.rules import services as rules
from skyctl.store import db, deployments, events, listings, migrations, organizations, services

DEFAULT_ORGANIZATION = "default"
HISTORY = 50


def list_services(
    context: Context,
    *,
    owners: Sequence[Organization] = (),
    worker_ids: Sequence[UUID] = (),
    statuses: Sequence[ServiceStatus] = (),
    order: ServiceOrder = ServiceOrder.ORGANIZATION,
    limit: int | None = 100,
    offset: int = 0,
) -> ServicePage:
    """Return one page of the services, all without `limit`; only those that are one of each sequence that is not
    empty."""
    with context.db.transaction() as tx:
        page, total = listings.services_page(
            tx,
            organization_ids=[owner.id for owner in owners],
            worker_ids=worker_ids,
            statuses=statuses,
            order=order,
            limit=limit,
            offset=offset,
        )
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
        is_panels = not matching and organizations.needs_owner(tx)
        if not matching and make and reference in (None, DEFAULT_ORGANIZATION) and not is_panels:
            if dry_run:
                return Organization(uuid4(), DEFAULT_ORGANIZATION, DEFAULT_ORGANIZATION, MigrationPolicy.AUTOMATIC)
            return organizations.insert_organization(tx, DEFAULT_ORGANIZATION)
    if not matching:
        name = "" if reference is None else f" {reference!r}"
        hint = "the panel makes them" + ("" if is_panels else "; `services deploy` without --org makes one of its own")
        raise OrganizationNotFound(f"there is no organization{name}", hint)
    if len(matching) > 1:
        several = ", ".join(organization.slug for organization in matching[:20])
        raise ValidationError(f"there are several organizations: {several}", "give one of them: --org")
    return matching[0]


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
