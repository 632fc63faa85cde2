"""Migrations in the database: which are called for, how far each has come, what holds them."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import MigrationCause, MigrationState
from skyctl.domain.workloads import Migration
from skyctl.store.rows import among, beginning
from skyctl.store.tables import deployments, migrations, services, workers

_NOW = sa.func.skyctl_now()
_SOURCE, _TARGET = workers.alias("source"), workers.alias("target")
_COLUMNS = [
    migrations.c[name]
    for name in (
        "id",
        "service_id",
        "cause",
        "state",
        "reason",
        "source_worker_id",
        "target_worker_id",
        "source_deployment_id",
        "target_deployment_id",
        "attempts",
        "next_attempt_at",
        "deadline_at",
        "started_at",
        "finished_at",
        "source_stopped_at",
        "created_at",
        "updated_at",
        "avoid",
        "cancelled_by",
    )
] + [
    services.c.name.label("service_name"),
    services.c.slug.label("service_slug"),
    services.c.organization_id,
    _SOURCE.c.name.label("source_name"),
    _TARGET.c.name.label("target_name"),
    deployments.c.swarm_service_id,
    # off where it was, whatever that worker says by now; onto a node that is the worker's
    sa.func.coalesce(_SOURCE.c.swarm_node_confirmed, _SOURCE.c.swarm_node_id).label("source_node_id"),
    sa.case((_TARGET.c.swarm_node_id == _TARGET.c.swarm_node_confirmed, _TARGET.c.swarm_node_id)).label(
        "target_node_id"
    ),
]
_JOINED = (
    migrations.join(services, services.c.id == migrations.c.service_id)
    .outerjoin(deployments, deployments.c.id == migrations.c.source_deployment_id)
    .outerjoin(_SOURCE, _SOURCE.c.id == migrations.c.source_worker_id)
    .outerjoin(_TARGET, _TARGET.c.id == migrations.c.target_worker_id)
)
_UNFINISHED = migrations.c.finished_at.is_(None)


class Work(NamedTuple):
    """The migrations that something can be done about: under way, waiting for a target, and completed ones whose old
    container is not known to have stopped though its worker has returned."""

    under_way: Sequence[Migration]
    queued: Sequence[Migration]
    orphans: Sequence[Migration]


_RELEASE = sa.text("""
    UPDATE container_migrations m
    SET state = 'queued', reason = '', mass_failure_id = NULL, updated_at = skyctl_now()
    WHERE m.finished_at IS NULL AND m.state = 'held'
      AND NOT EXISTS (SELECT FROM mass_failures f WHERE f.id = m.mass_failure_id AND f.lifted_at IS NULL)
    RETURNING m.id
""")
_REQUEUE = sa.text("""
    UPDATE container_migrations m SET state = 'queued', updated_at = skyctl_now()
    WHERE m.finished_at IS NULL AND m.state = 'failed' AND m.next_attempt_at <= skyctl_now()
""")
# What is under way when a drain's deadline passes is rolled back, and not tried again.
_HURRY = sa.text("""
    UPDATE container_migrations m SET deadline_at = w.drain_deadline_at, attempts = greatest(m.attempts, :attempts)
    FROM container_workers w
    WHERE w.id = m.source_worker_id AND m.finished_at IS NULL AND m.state IN ('starting', 'verifying')
      AND m.cause = 'drain' AND w.drain_deadline_at <= skyctl_now() AND m.deadline_at > w.drain_deadline_at
""")


def release_held(connection: sa.Connection) -> list[Migration]:
    """Queue the held ones whose mass failure is lifted; which they are."""
    return fetch(connection, connection.execute(_RELEASE).scalars())


def requeue(connection: sa.Connection, most_attempts: int) -> None:
    """Queue the failed ones whose pause is over, and let those under way end whose drain's deadline has passed."""
    connection.execute(_REQUEUE)
    connection.execute(_HURRY, {"attempts": most_attempts})


def work(connection: sa.Connection, most_queued: int) -> Work:
    """The migrations that can be advanced; of the queued ones, those of failed workers and then the oldest."""
    states = migrations.c.state
    under_way = _read(connection, _UNFINISHED, states.in_(("starting", "verifying")))
    urgent = sa.case((migrations.c.cause == MigrationCause.WORKER_FAILED.value, 0), else_=1)
    query = sa.select(*_COLUMNS).select_from(_JOINED).where(_UNFINISHED, states == MigrationState.QUEUED.value)
    rows = connection.execute(query.order_by(urgent, migrations.c.created_at, migrations.c.id).limit(most_queued))
    without_engine = sa.and_(_SOURCE.c.status.in_(["unhealthy", "draining"]), _SOURCE.c.engine_failed_at.is_not(None))
    returned = sa.and_(
        _SOURCE.c.status.is_distinct_from("offline"), without_engine.is_not(sa.true()), _SOURCE.c.id.is_not(None)
    )
    orphans = _read(
        connection, states == MigrationState.COMPLETED.value, migrations.c.source_stopped_at.is_(None), returned
    )
    return Work(under_way, [read(row) for row in rows], orphans)


def change(connection: sa.Connection, migration: Migration, state: MigrationState, **values: Any) -> bool:
    """Change the state of a migration that is still in the one that was seen. A final state ends it."""
    final = state in (MigrationState.COMPLETED, MigrationState.CANCELLED)
    changed = sa.update(migrations).where(migrations.c.id == migration.id, migrations.c.state == migration.state.value)
    values = {"state": state.value, "updated_at": _NOW, **({"finished_at": _NOW} if final else {}), **values}
    return connection.execute(changed.values(values)).rowcount > 0


def begin(
    connection: sa.Connection, migration: Migration, worker_id: UUID, deployment_id: UUID, timeout: timedelta
) -> Migration:
    """Note that a queued migration begins, to which worker, by which deployment; what it is then."""
    begun = sa.update(migrations).where(migrations.c.id == migration.id)
    connection.execute(
        begun.values(
            state=MigrationState.STARTING.value,
            target_worker_id=worker_id,
            target_deployment_id=deployment_id,
            deadline_at=_NOW + timeout,
            started_at=sa.func.coalesce(migrations.c.started_at, _NOW),
            reason="",
            attempts=migrations.c.attempts + 1,
            updated_at=_NOW,
        )
    )
    return fetch(connection, [migration.id])[0]


def fail(connection: sa.Connection, migration: Migration, reason: str, pause: timedelta | None) -> bool:
    """Note that an attempt failed; without a pause there is no other one."""
    values: dict[str, Any] = {
        "reason": reason,
        "avoid": sorted({*migration.avoid, *_known(migration.target_worker_id)}),
    }
    ends = {"finished_at": _NOW} if pause is None else {"next_attempt_at": _NOW + pause}
    return change(connection, migration, MigrationState.FAILED, **values, **ends)


def try_again(connection: sa.Connection, migration: Migration) -> bool:
    """Queue a failed migration with all its attempts, whether it would have been tried again or not."""
    renewed: dict[str, Any] = {
        "finished_at": None,
        "summed_up_at": None,
        "attempts": 0,
        "next_attempt_at": _NOW,
        "reason": "",
        "cancelled_by": None,
        "avoid": [],
    }
    return change(connection, migration, MigrationState.QUEUED, **renewed)


def note_reasons(connection: sa.Connection, reasons: Iterable[tuple[Migration, str]]) -> None:
    """Note why migrations are not further than they are."""
    for migration, reason in reasons:
        if reason != migration.reason:
            update = sa.update(migrations).where(migrations.c.id == migration.id)
            connection.execute(update.values(reason=reason, updated_at=_NOW))


def note_source_stopped(connection: sa.Connection, migration_id: UUID) -> None:
    """Note that the old container is known to have stopped."""
    stopped = sa.update(migrations).where(migrations.c.id == migration_id)
    connection.execute(stopped.values(source_stopped_at=_NOW, updated_at=_NOW))


def next_due_seconds(connection: sa.Connection) -> float | None:
    """In how many seconds the next failed one is to be tried again."""
    left = sa.func.extract("epoch", sa.func.min(migrations.c.next_attempt_at) - _NOW)
    failed = (_UNFINISHED, migrations.c.state == MigrationState.FAILED.value)
    seconds = connection.execute(sa.select(left).where(*failed)).scalar_one()
    return None if seconds is None else float(seconds)


def cancel_under_way(connection: sa.Connection, migration: Migration, by: str) -> bool:
    """Note that somebody cancels a migration that is under way: it is rolled back, unless it completes before that."""
    changed = sa.update(migrations).where(migrations.c.id == migration.id, migrations.c.state == migration.state.value)
    return connection.execute(changed.values(cancelled_by=by, updated_at=_NOW)).rowcount > 0


def cancel_of_service(connection: sa.Connection, service_id: UUID, reason: str) -> None:
    """Cancel whatever is unfinished of a service that is removed."""
    ended = sa.update(migrations).where(migrations.c.service_id == service_id, _UNFINISHED)
    values = {"state": MigrationState.CANCELLED.value, "finished_at": _NOW, "updated_at": _NOW, "reason": reason}
    connection.execute(ended.values(values))


def page(
    connection: sa.Connection, states: Sequence[MigrationState], worker_id: UUID | None, limit: int, offset: int
) -> tuple[list[Migration], int]:
    """Migrations, the unfinished ones first and then the latest, and how many there are; in these states, off or to a
    worker."""
    wanted: list[sa.ColumnElement[bool]] = []
    if states:
        wanted.append(migrations.c.state.in_([state.value for state in states]))
    if worker_id is not None:
        wanted.append(sa.or_(migrations.c.source_worker_id == worker_id, migrations.c.target_worker_id == worker_id))
    order = (migrations.c.finished_at.desc().nulls_first(), migrations.c.created_at.desc(), migrations.c.id)
    query = sa.select(*_COLUMNS).select_from(_JOINED).where(*wanted).order_by(*order).limit(limit).offset(offset)
    total = connection.execute(sa.select(sa.func.count()).select_from(migrations).where(*wanted)).scalar_one()
    return [read(row) for row in connection.execute(query)], total


def matching(connection: sa.Connection, reference: str) -> list[Migration]:
    """The unfinished migrations of a service of this name, and then those whose id begins so; ten at most."""
    named = sa.and_(_UNFINISHED, sa.or_(services.c.name == reference, services.c.slug == reference))
    wanted = [named] if (ids := beginning(migrations.c.id, reference)) is None else [named, ids]
    found: dict[UUID, Migration] = {}
    for condition in wanted:  # each by an index of its own, which the two together would not have
        query = sa.select(*_COLUMNS).select_from(_JOINED).where(condition)
        rows = connection.execute(query.order_by(migrations.c.created_at, migrations.c.id).limit(10))
        for row in rows:
            found.setdefault(row.id, read(row))
    return list(found.values())[:10]


def fetch(connection: sa.Connection, ids: Iterable[UUID]) -> list[Migration]:
    """These migrations, the oldest first."""
    wanted = list(ids)
    return _read(connection, among(migrations.c.id, wanted)) if wanted else []


def of_service(connection: sa.Connection, service_id: UUID, limit: int | None = None) -> list[Migration]:
    """The migrations of a service, or the latest of them, the last first."""
    order = (migrations.c.created_at.desc(), migrations.c.id.desc())
    query = sa.select(*_COLUMNS).select_from(_JOINED).where(migrations.c.service_id == service_id)
    return [read(row) for row in connection.execute(query.order_by(*order).limit(limit))]


def off_since(connection: sa.Connection, worker_id: UUID, since: datetime) -> list[Migration]:
    """The migrations off a worker that came about since a time."""
    return _read(connection, migrations.c.source_worker_id == worker_id, migrations.c.created_at >= since)


def read(row: Any) -> Migration:
    """A migration of a row."""
    ended = row.finished_at is not None
    return Migration(
        id=row.id,
        service_id=row.service_id,
        service_name=row.service_name,
        service_slug=row.service_slug,
        organization_id=row.organization_id,
        cause=MigrationCause(row.cause),
        state=MigrationState(row.state),
        reason=row.reason or "",
        source_worker_id=row.source_worker_id,
        source_worker_name=row.source_name,
        target_worker_id=row.target_worker_id,
        target_worker_name=row.target_name,
        source_deployment_id=row.source_deployment_id,
        target_deployment_id=row.target_deployment_id,
        swarm_service_id=row.swarm_service_id,
        source_node_id=row.source_node_id,
        target_node_id=row.target_node_id,
        avoid=frozenset(row.avoid),
        cancelled_by=row.cancelled_by,
        attempts=row.attempts,
        next_attempt_at=None if ended else row.next_attempt_at,
        deadline_at=row.deadline_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        source_stopped_at=row.source_stopped_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _read(connection: sa.Connection, *wanted: sa.ColumnElement[bool]) -> list[Migration]:
    query = sa.select(*_COLUMNS).select_from(_JOINED).where(*wanted).order_by(migrations.c.created_at, migrations.c.id)
    return [read(row) for row in connection.execute(query)]


def _known(worker_id: UUID | None) -> list[UUID]:
    return [] if worker_id is None else [worker_id]
