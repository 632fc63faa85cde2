"""Deploy a service: it is placed, written down, and then applied to the engine. What is interrupted in between, the
monitor finishes."""

from collections.abc import Mapping
from uuid import uuid4

from skyctl.domain.cluster import Actor, Capacity, Event
from skyctl.domain.engine import EngineNode
from skyctl.domain.errors import EngineConflict, EngineUnavailable, Refused
from skyctl.domain.events import EventKind, ServiceRef
from skyctl.domain.states import ServiceStatus
from skyctl.domain.workloads import Organization, Placement, Planned, Refusal, Service, ServiceSpec
from skyctl.operations.shared import apply_deployment, candidates
from skyctl.operations.shared.context import Context
from skyctl.rules import services as rules
from skyctl.store import db, deployments, events, migrations, services, workers


def deploy(
    context: Context, actor: Actor, organization: Organization, spec: ServiceSpec, *, dry_run: bool = False
) -> Planned:
    """Deploy a service of this organization: a new one where the placement rule says, one that exists where it is, as
    long as it fits there.

    With `dry_run` nothing is changed. Raises Refused where no worker has room, or the service is being moved;
    Superseded where it was deployed again, or removed, before this deployment reached the engine; EngineRefused;
    EngineUnavailable and EngineConflict (then the monitor applies it later).
    """
    slug = rules.slug(spec.name)
    nodes = context.engine().observe(()).nodes
    with context.recording() as tx:
        existing = services.by_slug(tx, organization.id, slug)
        if existing:
            _refuse_unless_changeable(tx, existing, spec)
        place = _place(tx, context, spec, existing, nodes)
        if isinstance(place, Refusal):
            raise Refused(f"{spec.name} finds no place: {place.reason}", "see `skyctl workers list -o wide`")
        before = existing.current if existing else None
        source, target = before.worker_name if before else None, workers.names_of(tx)[place.worker_id]
        planned = Planned(spec.name, organization.slug, source, target, place.reason)
        if dry_run:
            return planned
        service = _write_down(tx, actor, organization, spec, place, existing)
    if service and service.current:
        try:
            apply_deployment.apply_deployment(context, service, service.current.id, context.recording)
        except (EngineUnavailable, EngineConflict) as error:
            error.hint = (
                f"{spec.name} is written down, and deployed by the monitor once the engine answers. {error.hint}"
            )
            raise
    return planned


def _write_down(
    tx: db.Transaction,
    actor: Actor,
    organization: Organization,
    spec: ServiceSpec,
    place: Placement,
    existing: Service | None,
) -> Service | None:
    """Write a new deployment down as the service's current one, still to be applied to the engine."""
    before, worker_id = existing.current if existing else None, place.worker_id
    if existing and before:
        deployments.keep_wanted(tx, before.id, existing.spec)
    service_id = services.save(tx, organization.id, rules.slug(spec.name), spec)
    deployment_id = deployments.insert(tx, service_id, worker_id, spec, before.swarm_service_id if before else None)
    services.make_current(tx, service_id, deployment_id, ServiceStatus.DEPLOYING)
    service = services.get(tx, service_id)
    name = service.current.worker_name if service and service.current else None
    details = ServiceRef(serviceId=str(service_id), serviceName=spec.name, deploymentId=str(deployment_id))
    reason = f"{spec.name}: {spec.image}: {place.reason}"
    events.record(
        tx, Event(EventKind.SERVICE_DEPLOYED, worker_id, name, actor.name, reason=reason, details=details), actor
    )
    return service


def _place(
    tx: db.Transaction, context: Context, spec: ServiceSpec, existing: Service | None, nodes: Mapping[str, EngineNode]
) -> Placement | Refusal:
    """Return the place of a service: where it is, as long as it fits there; else the one that the rule chooses."""
    here = existing.current.worker_id if existing and existing.current else None
    if existing and here:
        before, now = existing.spec.limits, spec.limits
        more = Capacity(
            max(0.0, now.cpu_cores - before.cpu_cores),
            max(0.0, now.memory_mb - before.memory_mb),
            max(0.0, now.disk_gb - before.disk_gb),
        )
        growth = candidates.demand(
            uuid4(), ServiceSpec(spec.name, spec.image, more, region=spec.region, pool=spec.pool)
        )
        stays = candidates.plan(tx, [growth], nodes, context.health, only=[here])[0]
        if isinstance(stays, Placement):
            return Placement(stays.id, here, "it stays where it is")
    return candidates.plan(tx, [candidates.demand(uuid4(), spec)], nodes, context.health)[0]


def _refuse_unless_changeable(tx: db.Transaction, service: Service, spec: ServiceSpec) -> None:
    if service.spec.name != spec.name:
        raise Refused(
            f"the name {spec.name!r} would be known as {service.slug}, as {service.spec.name!r} is already",
            "choose a name that differs in more than case and punctuation",
        )
    if service.spec.adopted:
        raise Refused(
            f"{service.spec.name} was adopted: the engine has more of it than skyctl knows",
            "change it with `docker service update`",
        )
    moving = [migration for migration in migrations.of_service(tx, service.id) if migration.finished_at is None]
    if moving and moving[0].started_at:
        raise Refused(
            f"{service.spec.name} is being moved to {moving[0].target_worker_name}",
            f"wait for it, or `skyctl migrations cancel {str(moving[0].id)[:8]}`",
        )
