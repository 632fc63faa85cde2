"""Services and their deployments in the database."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from skyctl.documents import manifest
from skyctl.domain.states import DeploymentStatus, ServiceStatus
from skyctl.domain.workloads import Service, ServiceSpec
from skyctl.store import deployments as stored_deployments
from skyctl.store.rows import among, reference
from skyctl.store.tables import deployments, migrations, organizations, services, workers

_NOW = sa.func.skyctl_now()
SHOWN_STATUS: sa.ColumnElement[str] = sa.case(
    (
        sa.and_(services.c.status == ServiceStatus.RUNNING.value, services.c.down_reason.is_not(None)),
        ServiceStatus.DOWN.value,
    ),
    else_=sa.func.coalesce(services.c.status, ServiceStatus.PENDING.value),
)
COLUMNS = [
    services.c.id,
    services.c.organization_id,
    services.c.name,
    services.c.slug,
    services.c.environment_vars,
    services.c.resource_limits,
    SHOWN_STATUS.label("status"),
    services.c.created_at,
    services.c.updated_at,
    services.c.engine_settings,
    services.c.down_since,
    services.c.down_reason,
    services.c.ending_reason,
    organizations.c.slug.label("organization"),
    workers.c.name.label("worker_name"),
    *stored_deployments.COLUMNS,
]
JOINED = (
    services.join(organizations, organizations.c.id == services.c.organization_id)
    .outerjoin(deployments, deployments.c.id == services.c.current_deployment_id)
    .outerjoin(workers, workers.c.id == deployments.c.worker_id)
)
KEPT = services.c.status.is_distinct_from(ServiceStatus.DELETED.value)


def matching(connection: sa.Connection, reference: str, organization_id: UUID | None = None) -> list[Service]:
    """Return the services of this slug or name, and then those whose id begins so, ten at most; of one organization
    where one is given."""
    named = sa.or_(services.c.slug == reference, services.c.name == reference)
    by_id = sa.cast(services.c.id, sa.Text).startswith(reference.lower(), autoescape=True)
    wanted = [KEPT, sa.or_(named, by_id)]
    wanted += [] if organization_id is None else [services.c.organization_id == organization_id]
    query = sa.select(*COLUMNS).select_from(JOINED).where(*wanted)
    rows = connection.execute(query.order_by(named.desc(), services.c.name, services.c.id).limit(10))
    return [read(row) for row in rows]


def get(connection: sa.Connection, service_id: UUID, *, lock: bool = False) -> Service | None:
    """Return one service by its id; with `lock`, nobody else changes it until the transaction ends."""
    query = sa.select(*COLUMNS).select_from(JOINED).where(services.c.id == service_id, KEPT)
    row = connection.execute(query.with_for_update(of=services) if lock else query).one_or_none()
    return read(row) if row else None


def by_slug(connection: sa.Connection, organization_id: UUID, slug: str) -> Service | None:
    """Return the service of this organization and slug, locked against changes until the transaction ends."""
    named = (services.c.organization_id == organization_id, services.c.slug == slug, KEPT)
    query = sa.select(*COLUMNS).select_from(JOINED).where(*named).with_for_update(of=services)
    row = connection.execute(query).one_or_none()
    return read(row) if row else None


def by_engine_id(connection: sa.Connection, swarm_service_id: str) -> Service | None:
    """Return the service that the engine has under this id; None where skyctl does not manage it."""
    its = (deployments.c.swarm_service_id == swarm_service_id, KEPT)
    row = connection.execute(sa.select(*COLUMNS).select_from(JOINED).where(*its).limit(1)).one_or_none()
    return read(row) if row else None


def fetch(connection: sa.Connection, service_ids: Collection[UUID]) -> list[Service]:
    """Return these services, in the order of their ids."""
    query = sa.select(*COLUMNS).select_from(JOINED).where(among(services.c.id, service_ids), KEPT)
    return [read(row) for row in connection.execute(query.order_by(services.c.id))]


def on_workers(connection: sa.Connection, worker_ids: Iterable[UUID]) -> list[Service]:
    """Return the services whose current deployment occupies one of the workers, by name."""
    there = (among(deployments.c.worker_id, worker_ids), deployments.c.status.in_(stored_deployments.OCCUPYING), KEPT)
    query = sa.select(*COLUMNS).select_from(JOINED).where(*there).order_by(services.c.name, services.c.id)
    return [read(row) for row in connection.execute(query)]


class AppliedDeployment(NamedTuple):
    """The part of a service's current deployment that is compared with the engine's state."""

    deployment_id: UUID
    service_id: UUID
    service_name: str
    organization_id: UUID
    worker_id: UUID | None
    worker_name: str | None
    swarm_service_id: str
    created_as: str
    status: DeploymentStatus
    log: str
    container_id: str | None
    down_since: datetime | None
    down_seen_at: datetime | None
    down_reason: str | None
    ending_task: str | None
    ending_seen_at: datetime | None
    ending_reason: str | None
    deployed_at: datetime | None
    applied_at: datetime | None

    @property
    def is_down(self) -> bool:
        """Tell whether none of its containers ran when it was last looked at."""
        return self.down_since is not None

    @property
    def is_told(self) -> bool:
        """Tell whether people know that it is down."""
        return self.down_reason is not None

    @property
    def is_pending(self) -> bool:
        """Tell whether it is down, and people do not know yet."""
        return self.is_down and not self.is_told


def applied(connection: sa.Connection, after: UUID, limit: int, *, unsettled: bool) -> list[AppliedDeployment]:
    """Return up to `limit` of the services that the engine knows and that are not being moved, in the order of their
    deployments' ids and after this id; only the `unsettled` ones, whose containers are on their way, where asked."""
    d, moving = (
        deployments.c,
        sa.exists().where(
            migrations.c.service_id == services.c.id,
            migrations.c.finished_at.is_(None),
            migrations.c.state.in_(("starting", "verifying")),
        ),
    )
    states = ("deploying",) if unsettled else ("deploying", "running", "failed", "stopped")
    query = (
        sa.select(
            d.id,
            d.service_id,
            services.c.name,
            services.c.organization_id,
            d.worker_id,
            workers.c.name,
            d.swarm_service_id,
            sa.func.coalesce(sa.cast(d.created_as, sa.Text), ""),
            d.status,
            sa.func.coalesce(d.deployment_logs, ""),
            d.container_id,
            services.c.down_since,
            services.c.down_seen_at,
            services.c.down_reason,
            services.c.ending_task,
            services.c.ending_seen_at,
            services.c.ending_reason,
            d.deployed_at,
            d.applied_at,
        )
        .select_from(
            deployments.join(services, services.c.current_deployment_id == d.id).outerjoin(
                workers, workers.c.id == d.worker_id
            )
        )
        .where(
            d.id > after,
            d.status.in_(states),
            d.swarm_service_id.is_not(None),
            d.untold_since.is_(None),
            KEPT,
            sa.not_(moving),
        )
    )
    rows = connection.execute(query.order_by(d.id).limit(limit))
    return [AppliedDeployment._make([*row[:8], DeploymentStatus(row[8]), *row[9:]]) for row in rows]


def apply_pending(connection: sa.Connection, since: timedelta) -> list[Service]:
    """Return the services whose current deployment was written down at least so long ago and never applied to the
    engine."""
    d = deployments.c
    waiting = (d.untold_since <= _NOW - since, d.status == DeploymentStatus.DEPLOYING.value, KEPT)
    return [read(row) for row in connection.execute(sa.select(*COLUMNS).select_from(JOINED).where(*waiting))]


def leftovers(connection: sa.Connection, since: timedelta) -> list[tuple[Service, UUID]]:
    """Return the removed services that the engine may have all the same, each with the deployment that somebody began
    to apply at least so long ago, or the one of ours that was current when the panel marked the service as deleted."""
    d = deployments.c
    joined = services.join(organizations, organizations.c.id == services.c.organization_id).join(
        deployments, deployments.c.service_id == services.c.id
    )
    is_left = sa.and_(services.c.current_deployment_id == d.id, d.by_skyctl, d.swarm_service_id.is_not(None))
    query = (
        sa.select(*COLUMNS)
        .select_from(joined.outerjoin(workers, workers.c.id == d.worker_id))
        .where(sa.or_(d.untold_since <= _NOW - since, is_left), sa.not_(KEPT))
    )
    return [(read(row), row.d_id) for row in connection.execute(query)]


def engine_ids(connection: sa.Connection) -> set[str]:
    """Return the engine's ids of all services that skyctl manages."""
    return set(engine_names(connection))


def left_to_the_panel(connection: sa.Connection) -> dict[str, str]:
    """Return the names of the services that are written down and that skyctl has applied to no engine, by their ids."""
    current = services.outerjoin(deployments, services.c.current_deployment_id == deployments.c.id)
    unknown = (KEPT, deployments.c.swarm_service_id.is_(None), deployments.c.untold_since.is_(None))
    query = sa.select(services.c.id, services.c.name).select_from(current).where(*unknown)
    return {str(row.id): row.name for row in connection.execute(query)}


def engine_names(connection: sa.Connection) -> dict[str, str]:
    """Return the names of the services that skyctl manages and the engine knows, by the engine's ids."""
    current = deployments.join(services, services.c.current_deployment_id == deployments.c.id)
    known = sa.select(deployments.c.swarm_service_id, services.c.name).select_from(current)
    query = known.where(KEPT, deployments.c.swarm_service_id.is_not(None)).order_by(services.c.name, services.c.id)
    return {row.swarm_service_id: row.name for row in connection.execute(query)}


def endings(connection: sa.Connection) -> list[tuple[str, str]]:
    """Return the services that keep ending, by name, and why they are said to."""
    query = sa.select(services.c.name, services.c.ending_reason).where(KEPT, services.c.ending_reason.is_not(None))
    return [(name, reason) for name, reason in connection.execute(query.order_by(services.c.name))]


def save(connection: sa.Connection, organization_id: UUID, slug: str, spec: ServiceSpec) -> UUID:
    """Write down what is wanted of the service of this organization and slug, new or not; return its id."""
    values = {"name": spec.name, **stored_deployments.wanted_columns(spec), "status": ServiceStatus.DEPLOYING.value}
    wanted = insert(services).values(id=uuid4(), organization_id=organization_id, slug=slug, **values)
    saved = wanted.on_conflict_do_update(
        index_elements=["organization_id", "slug"], set_={**values, "updated_at": _NOW}
    ).returning(services.c.id)
    service_id: UUID = connection.execute(saved).scalar_one()
    return service_id


def make_current(connection: sa.Connection, service_id: UUID, deployment_id: UUID, status: ServiceStatus) -> None:
    """Make a deployment the service's current one."""
    changed = sa.update(services).where(services.c.id == service_id)
    connection.execute(changed.values(current_deployment_id=deployment_id, status=status.value, updated_at=_NOW))


def set_status(connection: sa.Connection, service_id: UUID, status: ServiceStatus) -> None:
    """Set the status of a service."""
    changed = sa.update(services).where(services.c.id == service_id)
    connection.execute(changed.values(status=status.value, updated_at=_NOW))


def restore(connection: sa.Connection, service_id: UUID, but: UUID) -> UUID | None:
    """Make the deployment that the engine has the current one again, with what was wanted then, and return its id;
    where it has none, the service has failed."""
    before = _former(connection, service_id, but)
    if before is None:
        set_status(connection, service_id, ServiceStatus.FAILED)
        return None
    make_current(connection, service_id, before.id, ServiceStatus(before.status))
    if before.wanted:
        connection.execute(sa.update(services).where(services.c.id == service_id).values(before.wanted))
    restored: UUID = before.id
    return restored


def has_former(connection: sa.Connection, service_id: UUID, but: UUID) -> bool:
    """Tell whether the engine has a deployment of a service that could be the current one again."""
    return _former(connection, service_id, but) is not None


def _former(connection: sa.Connection, service_id: UUID, but: UUID) -> Any:
    d = deployments.c
    is_applied = sa.and_(d.status == "deploying", d.untold_since.is_(None), d.swarm_service_id.is_not(None))
    applied = (d.service_id == service_id, d.id != but, sa.or_(d.status == "running", is_applied))
    latest = sa.select(d.id, d.wanted, d.status).where(*applied).order_by(d.created_at.desc()).limit(1)
    return connection.execute(latest).one_or_none()


def delete(connection: sa.Connection, service_id: UUID) -> None:
    """Mark a service as deleted. Its row stays with its history, and is used again where a service is deployed under
    the same slug."""
    gone = {"status": ServiceStatus.DELETED.value, "current_deployment_id": None, "updated_at": _NOW}
    gone |= dict.fromkeys(("down_since", "down_seen_at", "down_reason"))
    gone |= dict.fromkeys(("ending_task", "ending_seen_at", "ending_reason"))
    connection.execute(sa.update(services).where(services.c.id == service_id).values(gone))
    stopped = {"status": DeploymentStatus.STOPPED.value, "stopped_at": _NOW, "updated_at": _NOW}
    occupying = (deployments.c.service_id == service_id, deployments.c.status.in_(stored_deployments.OCCUPYING))
    connection.execute(sa.update(deployments).where(*occupying).values(stopped))


def references(connection: sa.Connection, prefix: str, limit: int = 100) -> list[str]:
    """Return the plain names, and of the services of other names the ids, that begin with a prefix."""
    referred = reference(services.c.name, services.c.id)
    query = sa.select(referred).where(KEPT, referred.startswith(prefix, autoescape=True)).distinct()
    return list(connection.execute(query.order_by(referred).limit(limit)).scalars())


def read(row: Any) -> Service:
    """Return the service of a row, with its current deployment."""
    current = None if row.d_id is None else stored_deployments.read(row)
    spec = manifest.stored(
        row.name,
        current.image if current else "",
        _object(row.environment_vars),
        row.resource_limits,
        _object(row.engine_settings),
    )
    return Service(
        id=row.id,
        organization_id=row.organization_id,
        organization=row.organization,
        slug=row.slug,
        status=ServiceStatus(row.status),
        spec=spec,
        current=current,
        created_at=row.created_at,
        updated_at=row.updated_at,
        down_since=row.down_since,
        down_reason=row.down_reason,
        ending_reason=row.ending_reason,
    )


def _object(stored: Any) -> Mapping[str, Any]:
    return stored if isinstance(stored, dict) else {}
