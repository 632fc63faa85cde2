"""Deployments of services in the database."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import sqlalchemy as sa

from skyctl.documents import manifest
from skyctl.domain.cluster import Capacity
from skyctl.domain.states import DeploymentStatus, ServiceStatus
from skyctl.domain.workloads import Deployment, Service, ServiceSpec
from skyctl.store.rows import among
from skyctl.store.tables import deployments, services, workers

OCCUPYING = ("pending", "building", "deploying", "running")
_NOW = sa.func.skyctl_now()
COLUMNS = [
    deployments.c[name].label(f"d_{name}")
    for name in (
        "id",
        "service_id",
        "worker_id",
        "swarm_service_id",
        "container_id",
        "image_tag",
        "status",
        "deployment_logs",
        "deployed_at",
        "stopped_at",
        "created_at",
        "image_digest",
    )
]


def get(connection: sa.Connection, deployment_id: UUID) -> Deployment | None:
    """Return one deployment by its id."""
    joined = deployments.outerjoin(workers, workers.c.id == deployments.c.worker_id)
    query = sa.select(*COLUMNS, workers.c.name.label("worker_name")).select_from(joined)
    row = connection.execute(query.where(deployments.c.id == deployment_id)).one_or_none()
    return read(row) if row else None


def of_service(connection: sa.Connection, service_id: UUID, limit: int) -> list[Deployment]:
    """Return the latest deployments of a service, the last first."""
    joined = deployments.outerjoin(workers, workers.c.id == deployments.c.worker_id)
    query = sa.select(*COLUMNS, workers.c.name.label("worker_name")).select_from(joined)
    latest = query.where(deployments.c.service_id == service_id).order_by(
        deployments.c.created_at.desc(), deployments.c.id
    )
    return [read(row) for row in connection.execute(latest.limit(limit))]


def insert(
    connection: sa.Connection,
    service_id: UUID,
    worker_id: UUID | None,
    spec: ServiceSpec,
    swarm_service_id: str | None,
    digest: str | None = None,
) -> UUID:
    """Insert a deployment of a service that is still to be applied, and to be made the current one; return its id."""
    deployment_id = uuid4()
    values = {
        "id": deployment_id,
        "service_id": service_id,
        "worker_id": worker_id,
        "image_tag": spec.image,
        "image_digest": digest,
        "status": DeploymentStatus.DEPLOYING.value,
        "swarm_service_id": swarm_service_id,
        "untold_since": _NOW,
        "created_as": deployment_id,
        "wanted": wanted_columns(spec),
        "created_at": _NOW,
        "by_skyctl": True,
    }
    connection.execute(sa.insert(deployments).values(values))
    return deployment_id


def insert_adopted(
    connection: sa.Connection, service_id: UUID, worker_id: UUID | None, image: str, swarm_service_id: str
) -> UUID:
    """Insert a deployment that runs already, whoever made it, on several workers where none is given; return its
    id."""
    values = {
        "id": uuid4(),
        "service_id": service_id,
        "worker_id": worker_id,
        "image_tag": image,
        "status": DeploymentStatus.RUNNING.value,
        "swarm_service_id": swarm_service_id,
        "deployed_at": _NOW,
        "by_skyctl": True,
    }
    deployment_id: UUID = connection.execute(
        sa.insert(deployments).values(values).returning(deployments.c.id)
    ).scalar_one()
    return deployment_id


def insert_scaled(
    connection: sa.Connection, service_id: UUID, worker_id: UUID | None, spec: ServiceSpec, source_id: UUID
) -> UUID:
    """Insert a copy of a deployment that differs in the number of containers, which is still to be applied; return its
    id. Its containers are those that the other one created."""
    deployment_id = insert_move(connection, service_id, worker_id, source_id)
    scaled = sa.update(deployments).where(deployments.c.id == deployment_id)
    connection.execute(scaled.values(wanted=wanted_columns(spec), untold_since=_NOW, created_at=_NOW))
    return deployment_id


def insert_move(connection: sa.Connection, service_id: UUID, worker_id: UUID | None, source_id: UUID | None) -> UUID:
    """Insert a copy of a deployment for another worker (None: for none); return its id."""
    d, copied_columns = (
        deployments.c,
        ("image_tag", "image_digest", "swarm_service_id", "created_as", "wanted", "internal_port", "external_port"),
    )
    deployment_id = uuid4()
    copied = sa.select(
        sa.literal(deployment_id),
        sa.literal(service_id),
        sa.literal(worker_id, deployments.c.worker_id.type),
        sa.literal(DeploymentStatus.DEPLOYING.value),
        sa.true(),
        *(d[name] for name in copied_columns),
    ).where(d.id == source_id)
    columns = ["id", "service_id", "worker_id", "status", "by_skyctl", *copied_columns]
    connection.execute(sa.insert(deployments).from_select(columns, copied))
    return deployment_id


def is_apply_pending(connection: sa.Connection, deployment_id: UUID) -> bool:
    """Tell whether a deployment is still to be applied to the engine."""
    pending = sa.exists().where(deployments.c.id == deployment_id, deployments.c.untold_since.is_not(None))
    return bool(connection.execute(sa.select(pending)).scalar_one())


def before(connection: sa.Connection, service: Service) -> tuple[ServiceSpec, str | None] | None:
    """Return what was wanted of a service when it last ran otherwise than it is to now, and the digest of its image,
    where that is known; None where it never did."""
    d, current = deployments.c, service.current
    columns = wanted_columns(service.spec)
    is_other = sa.or_(d.image_tag != service.spec.image, d.wanted != sa.cast(columns, d.wanted.type))
    if current and current.digest:
        is_other = sa.or_(is_other, d.image_digest != current.digest)
    ran = [d.service_id == service.id, d.deployed_at.is_not(None), d.wanted.is_not(None), is_other]
    ran += [] if current is None else [d.id != current.id]
    query = sa.select(d.image_tag, d.image_digest, d.wanted).where(*ran).order_by(d.created_at.desc(), d.id).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    environment, limits, settings = (row.wanted.get(name) or {} for name in columns)
    spec = manifest.stored(service.spec.name, row.image_tag, environment, limits, settings)
    return spec, row.image_digest


def keeps_containers(connection: sa.Connection, deployment_id: UUID) -> bool:
    """Tell whether a deployment is to run the containers that another one created, or their owner."""
    d = deployments.c
    other = sa.exists().where(d.id == deployment_id, d.created_as.is_distinct_from(d.id))
    return bool(connection.execute(sa.select(other)).scalar_one())


def set_apply_pending(connection: sa.Connection, deployment_id: UUID) -> None:
    """Note that a deployment is to be applied to the engine, once more where it was already."""
    values = {
        "status": DeploymentStatus.DEPLOYING.value,
        "applied_at": None,
        "untold_since": sa.func.coalesce(deployments.c.untold_since, _NOW),
        "created_as": deployments.c.id,
        "updated_at": _NOW,
    }
    connection.execute(sa.update(deployments).where(deployments.c.id == deployment_id).values(values))


def note_applied(connection: sa.Connection, deployment_id: UUID, swarm_service_id: str | None) -> None:
    """Note that a deployment was applied to the engine; without an id, that the engine does not have it and it is not
    to be applied any more."""
    values: dict[str, Any] = {"untold_since": None, "updated_at": _NOW}
    values |= {"swarm_service_id": swarm_service_id, "applied_at": _NOW} if swarm_service_id else {}
    connection.execute(sa.update(deployments).where(deployments.c.id == deployment_id).values(values))


def give_up_pending(connection: sa.Connection, service_id: UUID) -> bool:
    """Note that nothing of a service is to be applied to the engine any more; return whether anything was."""
    pending = (deployments.c.service_id == service_id, deployments.c.untold_since.is_not(None))
    stopped = {"status": DeploymentStatus.STOPPED.value, "untold_since": None, "stopped_at": _NOW, "updated_at": _NOW}
    return connection.execute(sa.update(deployments).where(*pending).values(stopped)).rowcount > 0


def set_status(
    connection: sa.Connection,
    deployment_id: UUID,
    status: DeploymentStatus,
    *,
    log: str | None = None,
    container_id: str | None = None,
    swarm_service_id: str | None = None,
) -> None:
    """Set the status of a deployment, and what else is given; what is None stays."""
    values: dict[str, Any] = {"status": status.value, "updated_at": _NOW}
    if status is DeploymentStatus.RUNNING:
        values |= {"deployed_at": sa.func.coalesce(deployments.c.deployed_at, _NOW), "stopped_at": None}
    elif status is not DeploymentStatus.DEPLOYING:
        values["stopped_at"] = sa.func.coalesce(deployments.c.stopped_at, _NOW)
    optional = {"deployment_logs": log, "container_id": container_id, "swarm_service_id": swarm_service_id}
    values |= {name: value for name, value in optional.items() if value is not None}
    connection.execute(sa.update(deployments).where(deployments.c.id == deployment_id).values(values))


def keep_wanted(connection: sa.Connection, deployment_id: UUID, spec: ServiceSpec) -> None:
    """Keep what is wanted of a service with its deployment, before that changes."""
    kept = sa.update(deployments).where(deployments.c.id == deployment_id, deployments.c.wanted.is_(None))
    connection.execute(kept.values(wanted=wanted_columns(spec)))


def leave(connection: sa.Connection, service_id: UUID) -> bool:
    """Have a deleted service no current deployment any more; return whether it had one."""
    had = (services.c.id == service_id, services.c.status == ServiceStatus.DELETED.value)
    left = sa.update(services).where(*had, services.c.current_deployment_id.is_not(None))
    return connection.execute(left.values(current_deployment_id=None, updated_at=_NOW)).rowcount > 0


def set_worker(connection: sa.Connection, deployment_id: UUID, worker_id: UUID | None) -> None:
    """Note that a deployment is on another worker than was written down, or on none, as what the swarm places."""
    moved = sa.update(deployments).where(deployments.c.id == deployment_id)
    connection.execute(moved.values(worker_id=worker_id, updated_at=_NOW))


def redirect(connection: sa.Connection, deployment_id: UUID, worker_id: UUID) -> None:
    """Note that a deployment goes to another worker, since the engine has no place for it on its own; it is still to be
    applied there."""
    d = deployments.c
    values = {"worker_id": worker_id, "no_place_on": sa.func.array_append(d.no_place_on, d.worker_id)}
    connection.execute(sa.update(deployments).where(d.id == deployment_id).values(values))
    set_apply_pending(connection, deployment_id)


def no_place_on(connection: sa.Connection, deployment_id: UUID) -> set[UUID]:
    """Return the workers on which the engine found no place for a deployment, but for its present one."""
    query = sa.select(deployments.c.no_place_on).where(deployments.c.id == deployment_id)
    return set(connection.execute(query).scalar_one_or_none() or ())


def stop_others(connection: sa.Connection, service_id: UUID, but: UUID) -> None:
    """Note that all deployments of a service except one have stopped."""
    others = sa.update(deployments).where(
        deployments.c.service_id == service_id, deployments.c.id != but, deployments.c.status.in_(OCCUPYING)
    )
    stopped = {"status": DeploymentStatus.STOPPED.value, "stopped_at": _NOW, "updated_at": _NOW}
    connection.execute(others.values(stopped))


class Reservations(NamedTuple):
    """The reservations of the deployments on a worker or on their way to it: all of them, those of which no heartbeat
    of the worker tells yet, and how many deployments of each `spread` there are."""

    whole: Capacity
    unmeasured: Capacity
    siblings: Mapping[str, int]


def reserved(connection: sa.Connection, only: Collection[UUID] | None = None) -> dict[UUID, Reservations]:
    """Return, by worker, what the deployments on it or on their way to it reserve."""
    figures = (("cpuCores", "cpu_cores"), ("memoryMb", "memory_mb"), ("diskGb", "disk_gb"))
    needs: list[sa.ColumnElement[float]] = [
        sa.func.skyctl_figure(services.c.resource_limits, *names, type_=sa.Double()) for names in figures
    ]
    began = sa.func.coalesce(deployments.c.deployed_at > workers.c.last_heartbeat_at, True)
    unmeasured = sa.or_(deployments.c.status != DeploymentStatus.RUNNING.value, began)
    sums = [sa.func.coalesce(sa.func.sum(need), 0.0) for need in needs]
    sums += [sa.func.coalesce(sa.func.sum(need).filter(unmeasured), 0.0) for need in needs]
    spread = services.c.engine_settings["spread"].astext
    here = deployments.c.worker_id.is_not(None) if only is None else among(deployments.c.worker_id, only)
    occupying = (deployments.c.status.in_(OCCUPYING), here)
    query = sa.select(deployments.c.worker_id, spread, sa.func.count(), *sums).where(*occupying)
    joined = query.join_from(deployments, services, services.c.id == deployments.c.service_id).join(
        workers, workers.c.id == deployments.c.worker_id
    )
    found: dict[UUID, Reservations] = {}
    for worker_id, group, count, *sums_of_group in connection.execute(joined.group_by(deployments.c.worker_id, spread)):
        before = found.get(worker_id, Reservations(Capacity(), Capacity(), {}))
        whole, fresh = Capacity(*sums_of_group[:3]), Capacity(*sums_of_group[3:])
        siblings = {**before.siblings, group: count} if group else before.siblings
        found[worker_id] = Reservations(_sum(before.whole, whole), _sum(before.unmeasured, fresh), siblings)
    return found


def _sum(one: Capacity, other: Capacity) -> Capacity:
    return Capacity(one.cpu_cores + other.cpu_cores, one.memory_mb + other.memory_mb, one.disk_gb + other.disk_gb)


def arriving(connection: sa.Connection) -> list[tuple[UUID, UUID, str | None]]:
    """Return the deployments that are on their way to a worker: the service, the worker, and the engine's service."""
    d = deployments.c
    on_its_way = (d.status == DeploymentStatus.DEPLOYING.value, d.worker_id.is_not(None))
    query = sa.select(d.service_id, d.worker_id, d.swarm_service_id).where(*on_its_way).order_by(d.id)
    return [(row.service_id, row.worker_id, row.swarm_service_id) for row in connection.execute(query)]


def wanted_columns(spec: ServiceSpec) -> dict[str, Any]:
    """Return what is wanted of a service, by the columns of its row."""
    return {
        "environment_vars": dict(spec.environment),
        "resource_limits": manifest.limits_document(spec.limits),
        "engine_settings": manifest.settings_document(spec),
    }


def read(row: Any) -> Deployment:
    """Return the deployment of a row of COLUMNS and a worker's name."""
    return Deployment(
        id=row.d_id,
        service_id=row.d_service_id,
        worker_id=row.d_worker_id,
        worker_name=row.worker_name,
        swarm_service_id=row.d_swarm_service_id,
        container_id=row.d_container_id,
        image=row.d_image_tag,
        status=DeploymentStatus(row.d_status or "pending"),
        log=row.d_deployment_logs or "",
        deployed_at=row.d_deployed_at,
        stopped_at=row.d_stopped_at,
        created_at=row.d_created_at,
        digest=row.d_image_digest,
    )
