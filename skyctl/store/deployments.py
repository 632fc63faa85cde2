"""Deployments of services in the database."""

from collections.abc import Collection
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from skyctl.documents import manifest
from skyctl.domain.cluster import Capacity
from skyctl.domain.states import DeploymentStatus
from skyctl.domain.workloads import Deployment, ServiceSpec
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
    connection: sa.Connection, service_id: UUID, worker_id: UUID, spec: ServiceSpec, swarm_service_id: str | None
) -> UUID:
    """Insert a deployment of a service that is still to be applied, and to be made the current one; return its id."""
    deployment_id = uuid4()
    values = {
        "id": deployment_id,
        "service_id": service_id,
        "worker_id": worker_id,
        "image_tag": spec.image,
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
    connection: sa.Connection, service_id: UUID, worker_id: UUID, image: str, swarm_service_id: str
) -> UUID:
    """Insert a deployment that runs already, whoever made it; return its id."""
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


def insert_move(connection: sa.Connection, service_id: UUID, worker_id: UUID, source_id: UUID | None) -> UUID:
    """Insert a copy of a deployment for another worker; return its id."""
    d, copied_columns = (
        deployments.c,
        ("image_tag", "swarm_service_id", "created_as", "wanted", "internal_port", "external_port"),
    )
    deployment_id = uuid4()
    copied = sa.select(
        sa.literal(deployment_id),
        sa.literal(service_id),
        sa.literal(worker_id),
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


def set_apply_pending(connection: sa.Connection, deployment_id: UUID) -> None:
    """Note that a deployment is to be applied to the engine, once more where it was already."""
    values = {
        "status": DeploymentStatus.DEPLOYING.value,
        "untold_since": sa.func.coalesce(deployments.c.untold_since, _NOW),
        "created_as": deployments.c.id,
        "updated_at": _NOW,
    }
    connection.execute(sa.update(deployments).where(deployments.c.id == deployment_id).values(values))


def note_applied(connection: sa.Connection, deployment_id: UUID, swarm_service_id: str | None) -> None:
    """Note that a deployment was applied to the engine; without an id, that the engine does not have it and it is not
    to be applied any more."""
    values: dict[str, Any] = {"untold_since": None, "updated_at": _NOW}
    values |= {"swarm_service_id": swarm_service_id} if swarm_service_id else {}
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


def set_worker(connection: sa.Connection, deployment_id: UUID, worker_id: UUID) -> None:
    """Note that a deployment is on another worker than was written down."""
    moved = sa.update(deployments).where(deployments.c.id == deployment_id)
    connection.execute(moved.values(worker_id=worker_id, updated_at=_NOW))


def stop_others(connection: sa.Connection, service_id: UUID, but: UUID) -> None:
    """Note that all deployments of a service except one have stopped."""
    others = sa.update(deployments).where(
        deployments.c.service_id == service_id, deployments.c.id != but, deployments.c.status.in_(OCCUPYING)
    )
    stopped = {"status": DeploymentStatus.STOPPED.value, "stopped_at": _NOW, "updated_at": _NOW}
    connection.execute(others.values(stopped))


def reserved(
    connection: sa.Connection, only: Collection[UUID] | None = None
) -> tuple[dict[UUID, Capacity], dict[UUID, dict[str, int]]]:
    """Return, by worker, what the deployments on it or on their way to it reserve, and how many of each `spread` there
    are."""
    figures = (("cpuCores", "cpu_cores"), ("memoryMb", "memory_mb"), ("diskGb", "disk_gb"))
    needs: list[sa.ColumnElement[float]] = [
        sa.func.coalesce(sa.func.sum(sa.func.skyctl_figure(services.c.resource_limits, *names, type_=sa.Double())), 0.0)
        for names in figures
    ]
    spread = services.c.engine_settings["spread"].astext
    here = deployments.c.worker_id.is_not(None) if only is None else among(deployments.c.worker_id, only)
    occupying = (deployments.c.status.in_(OCCUPYING), here)
    query = sa.select(deployments.c.worker_id, spread, sa.func.count(), *needs).where(*occupying)
    joined = query.join_from(deployments, services, services.c.id == deployments.c.service_id)
    capacity: dict[UUID, Capacity] = {}
    siblings: dict[UUID, dict[str, int]] = {}
    for worker_id, group, count, cores, memory, disk in connection.execute(
        joined.group_by(deployments.c.worker_id, spread)
    ):
        before = capacity.get(worker_id, Capacity())
        capacity[worker_id] = Capacity(before.cpu_cores + cores, before.memory_mb + memory, before.disk_gb + disk)
        if group:
            siblings.setdefault(worker_id, {})[group] = count
    return capacity, siblings


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
    )
