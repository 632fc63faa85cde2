"""Deploy a service: it is placed, written down, and then applied to the engine. What is interrupted in between, the
monitor finishes."""

from dataclasses import replace
from uuid import UUID, uuid4

from skyctl.domain.cluster import Actor, Capacity, Event
from skyctl.domain.drains import Planned
from skyctl.domain.engine import Observation, stops_first
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable, Refused
from skyctl.domain.event_details import ServiceRef
from skyctl.domain.events import EventKind
from skyctl.domain.states import ServiceStatus
from skyctl.domain.workloads import Deployment, Organization, Placement, Refusal, Service, ServiceSpec
from skyctl.operations.shared import apply_deployment, candidates
from skyctl.operations.shared.context import Context
from skyctl.rules import services as rules
from skyctl.rules.tasks import runs
from skyctl.store import db, deployments, events, migrations, services, workers


def deploy(
    context: Context,
    actor: Actor,
    organization: Organization,
    spec: ServiceSpec,
    *,
    dry_run: bool = False,
    keeps_image: bool = False,
    known_digest: str | None = None,
) -> Planned:
    """Deploy a service of this organization: a new one where the placement rule says, one that exists where it is, as
    long as it fits there.

    Its image is pinned to `known_digest` where that is given, or to none where that is empty; with `keeps_image` to the
    digest that it has already; else to the one that its registry has now.
    With `dry_run` nothing is changed. Raises Refused where no worker has room, or the service is being moved;
    Superseded where it was deployed again, or removed, before this deployment reached the engine; EngineRefused;
    EngineUnavailable and EngineConflict (then the monitor applies it later).
    """
    slug = rules.slug(spec.name)
    swarm = context.engine().observe()
    digest, unpinned = known_digest, ""
    if not dry_run and digest is None:
        digest, unpinned = _digest(context, organization, spec, keeps_image=keeps_image)
    with context.recording() as tx:
        existing = services.by_slug(tx, organization.id, slug)
        if existing:
            _refuse_unless_changeable(tx, existing, spec)
        place = _place(tx, context, spec, existing, swarm) if spec.replicas == 1 else None
        if isinstance(place, Refusal):
            raise Refused(f"{spec.name} finds no place: {place.reason}", "see `skyctl workers list -o wide`")
        before = existing.current if existing else None
        source, target = (
            before.worker_name if before else None,
            workers.names_of(tx)[place.worker_id] if place else None,
        )
        reason = place.reason if place else f"{spec.replicas} containers, which the swarm places"
        planned = Planned(spec.name, organization.slug, source, target, reason, unpinned)
        if dry_run:
            return planned
        worker_id = place.worker_id if place else None
        service = _write_down(tx, actor, organization, spec, worker_id, reason, existing, digest or None)
    if service and service.current:
        try:
            apply_deployment.apply_deployment(context, service, service.current.id, context.recording)
        except (EngineUnavailable, EngineConflict) as error:
            error.hint = (
                f"{spec.name} is written down, and deployed by the monitor once the engine answers. {error.hint}"
            )
            raise
    return planned


def _digest(
    context: Context, organization: Organization, spec: ServiceSpec, *, keeps_image: bool
) -> tuple[str | None, str]:
    """Return the digest to which the image is pinned; without one, why there is none, where it names none itself, and
    is its owner's to pin."""
    if "@" in spec.image or spec.adopted:
        return None, ""
    if keeps_image:
        with context.db.transaction() as tx:
            existing = services.by_slug(tx, organization.id, rules.slug(spec.name))
        current = existing.current if existing else None
        if existing and current and current.image == spec.image and (current.digest or rules.is_scaled(existing, spec)):
            return current.digest, ""
    try:
        return context.engine().digest(spec.image), ""
    except (EngineRefused, EngineUnavailable) as error:
        return None, error.message


def _write_down(
    tx: db.Transaction,
    actor: Actor,
    organization: Organization,
    spec: ServiceSpec,
    worker_id: UUID | None,
    why: str,
    existing: Service | None,
    digest: str | None,
) -> Service | None:
    """Write a new deployment down as the service's current one, still to be applied to the engine."""
    before = existing.current if existing else None
    if existing and before:
        deployments.keep_wanted(tx, before.id, existing.spec)
    service_id = services.save(tx, organization.id, rules.slug(spec.name), spec)
    if existing and before and _is_scaled(tx, existing, spec, before, digest):
        deployment_id = deployments.insert_scaled(tx, service_id, worker_id, spec, before.id)
    else:
        swarm_service_id = before.swarm_service_id if before else None
        deployment_id = deployments.insert(tx, service_id, worker_id, spec, swarm_service_id, digest)
    services.make_current(tx, service_id, deployment_id, ServiceStatus.DEPLOYING)
    service = services.get(tx, service_id)
    name = service.current.worker_name if service and service.current else None
    details = ServiceRef(serviceId=str(service_id), serviceName=spec.name, deploymentId=str(deployment_id))
    reason = f"{spec.name}: {spec.image}: {why}"
    events.record(
        tx, Event(EventKind.SERVICE_DEPLOYED, worker_id, name, actor.name, reason=reason, details=details), actor
    )
    return service


def _is_scaled(
    tx: db.Transaction, existing: Service, spec: ServiceSpec, before: Deployment, digest: str | None
) -> bool:
    """Tell whether the containers that the engine has are those that are wanted, but for their number."""
    is_same_image = spec.adopted or digest == before.digest
    return is_same_image and rules.is_scaled(existing, spec) and not deployments.is_apply_pending(tx, before.id)


def _here(tx: db.Transaction, existing: Service | None, swarm: Observation) -> UUID | None:
    """Return the worker that a service is on; of one with several containers, one where such a container runs."""
    current = existing.current if existing else None
    if current is None or current.worker_id:
        return current.worker_id if current else None
    service = swarm.services.get(current.swarm_service_id or "")
    running = [task.node_id for task in service.tasks if runs(task) and task.node_id] if service else []
    held = workers.by_node(tx, running)
    return next((held[node_id] for node_id in running if node_id in held), None)


def _place(
    tx: db.Transaction, context: Context, spec: ServiceSpec, existing: Service | None, swarm: Observation
) -> Placement | Refusal:
    """Return the place of a service: where it is, as long as it fits there; else the one that the rule chooses."""
    here = _here(tx, existing, swarm)
    ground = candidates.ground(swarm, but=existing if stops_first(spec.ports, spec.endpoint_mode) else None)
    if existing and here:
        before, now = existing.spec.limits, spec.limits
        more = Capacity(
            max(0.0, now.cpu_cores - before.cpu_cores),
            max(0.0, now.memory_mb - before.memory_mb),
            max(0.0, now.disk_gb - before.disk_gb),
        )
        growth = replace(candidates.demand(uuid4(), spec), needs=more, spread=None)
        stays = candidates.plan(tx, [growth], ground, context.health, only=[here])[0]
        if isinstance(stays, Placement):
            return Placement(stays.id, here, "it stays where it is")
    return candidates.plan(tx, [candidates.demand(uuid4(), spec)], ground, context.health)[0]


def _refuse_unless_changeable(tx: db.Transaction, service: Service, spec: ServiceSpec) -> None:
    if service.spec.name != spec.name:
        raise Refused(
            f"the name {spec.name!r} would be known as {service.slug}, as {service.spec.name!r} is already",
            "choose a name that differs in more than case and punctuation",
        )
    if service.spec.adopted and not rules.differs_in_number(service, spec):
        raise Refused(
            f"{service.spec.name} was adopted: the engine has more of it than skyctl knows",
            "change it with `docker service update`, its number of containers with `skyctl services scale`",
        )
    moving = [migration for migration in migrations.of_service(tx, service.id) if migration.finished_at is None]
    if moving and moving[0].started_at:
        raise Refused(
            f"{service.spec.name} is being moved to {moving[0].target_worker_name}",
            f"wait for it, or `skyctl migrations cancel {str(moving[0].id)[:8]}`",
        )
