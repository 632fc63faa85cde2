"""Migrations in the database: which are called for, how far each has come, what holds them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import MigrationCause, MigrationState
from skyctl.domain.workloads import Migration
from skyctl.store.rows import among, beginning
from skyctl.store.tables import deployments, migrations, services, workers

_NOW = sa.func.skyctl_now()
SOURCE, TARGET = workers.alias("source"), workers.alias("target")
COLUMNS = [
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
    sa.func.coalesce(services.c.name, migrations.c.swarm_service_name).label("service_name"),
    sa.func.coalesce(services.c.slug, migrations.c.swarm_service_name).label("service_slug"),
    services.c.organization_id,
    SOURCE.c.name.label("source_name"),
    TARGET.c.name.label("target_name"),
    sa.func.coalesce(migrations.c.swarm_service_id, deployments.c.swarm_service_id).label("swarm_service_id"),
    sa.and_(migrations.c.cause == MigrationCause.DRAIN.value, SOURCE.c.drain_deadline_at <= _NOW).label("is_hurried"),
    # off where it was, whatever that worker says by now; onto a node that is the worker's
    sa.func.coalesce(SOURCE.c.swarm_node_confirmed, SOURCE.c.swarm_node_id).label("source_node_id"),
    sa.case((TARGET.c.swarm_node_id == TARGET.c.swarm_node_confirmed, TARGET.c.swarm_node_id)).label("target_node_id"),
]
JOINED = (
    migrations.outerjoin(services, services.c.id == migrations.c.service_id)
    .outerjoin(deployments, deployments.c.id == migrations.c.source_deployment_id)
    .outerjoin(SOURCE, SOURCE.c.id == migrations.c.source_worker_id)
    .outerjoin(TARGET, TARGET.c.id == migrations.c.target_worker_id)
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
_NOTE_REASONS = sa.text("""
    UPDATE container_migrations m SET reason = e.reason, updated_at = skyctl_now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS e (id, reason) WHERE m.id = e.id
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
    query = sa.select(*COLUMNS).select_from(JOINED).where(_UNFINISHED, states == MigrationState.QUEUED.value)
    rows = connection.execute(query.order_by(urgent, migrations.c.created_at, migrations.c.id).limit(most_queued))
    without_engine = sa.and_(SOURCE.c.status.in_(["unhealthy", "draining"]), SOURCE.c.engine_failed_at.is_not(None))
    returned = sa.and_(
        SOURCE.c.status.is_distinct_from("offline"), without_engine.is_not(sa.true()), SOURCE.c.id.is_not(None)
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
    target = {"target_worker_id": worker_id, "target_deployment_id": deployment_id}
    return _begin(connection, migration, timeout, target)


def fail(
    connection: sa.Connection, migration: Migration, reason: str, pause: timedelta | None, *, counts: bool = True
) -> bool:
    """Note that an attempt failed; without a pause there is no other one. One that does not count is as if it had not
    begun."""
    values: dict[str, Any] = {
        "reason": reason,
        "avoid": sorted({*migration.avoid, *_known(migration.target_worker_id)}),
    }
    ends: dict[str, Any] = {"finished_at": _NOW} if pause is None else {"next_attempt_at": _NOW + pause}
    values |= {} if counts else {"attempts": migrations.c.attempts - 1}
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


def begin_excluding(connection: sa.Connection, migration: Migration, timeout: timedelta) -> Migration:
    """Note that a queued migration of what the swarm places begins; what it is then."""
    return _begin(connection, migration, timeout, {})


def note_reasons(connection: sa.Connection, reasons: Iterable[tuple[Migration, str]]) -> None:
    """Note why migrations are not further than they are."""
    new = {migration.id: reason for migration, reason in reasons if reason != migration.reason}
    if new:
        connection.execute(_NOTE_REASONS, {"ids": list(new), "reasons": list(new.values())})


def note_sources_stopped(connection: sa.Connection, migration_ids: Collection[UUID]) -> None:
    """Note that the old containers of these are known to have stopped."""
    if migration_ids:
        stopped = sa.update(migrations).where(among(migrations.c.id, migration_ids))
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


def matching(connection: sa.Connection, reference: str) -> list[Migration]:
    """The unfinished migrations of a service of this name, and then those whose id begins so; ten at most."""
    names = (services.c.name, services.c.slug, migrations.c.swarm_service_name)
    named = sa.and_(_UNFINISHED, sa.or_(*(name == reference for name in names)))
    wanted = [named] if (ids := beginning(migrations.c.id, reference)) is None else [named, ids]
    found: dict[UUID, Migration] = {}
    for condition in wanted:  # each by an index of its own, which the two together would not have
        query = sa.select(*COLUMNS).select_from(JOINED).where(condition)
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
    query = sa.select(*COLUMNS).select_from(JOINED).where(migrations.c.service_id == service_id)
    return [read(row) for row in connection.execute(query.order_by(*order).limit(limit))]


def moving(connection: sa.Connection, swarm_service_id: str) -> Migration | None:
    """The migration by which we move a service of the engine, by its id; None where none has begun, or the swarm alone
    moves it."""
    its_id = sa.func.coalesce(migrations.c.swarm_service_id, deployments.c.swarm_service_id)
    begun = migrations.c.state.in_(("starting", "verifying"))
    found = _read(connection, its_id == swarm_service_id, begun, _UNFINISHED)
    return next((migration for migration in found if not migration.is_left_to_swarm), None)


def unfinished(connection: sa.Connection, service_id: UUID, swarm_service_id: str | None) -> list[Migration]:
    """The migrations of a service that are not over, by its own id or, of what the swarm places, by the engine's."""
    its_id = migrations.c.service_id == service_id
    return _read(connection, sa.or_(its_id, migrations.c.swarm_service_id == swarm_service_id), _UNFINISHED)


def of_same(connection: sa.Connection, migration: Migration) -> list[Migration]:
    """The unfinished migrations of the same service; of one that the swarm places, off the same worker."""
    if migration.service_id is not None:
        return _read(connection, migrations.c.service_id == migration.service_id, _UNFINISHED)
    off = migrations.c.source_worker_id == migration.source_worker_id
    return _read(connection, migrations.c.swarm_service_id == migration.swarm_service_id, off, _UNFINISHED)


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
        is_hurried=row.cancelled_by is not None or row.is_hurried is True,
        attempts=row.attempts,
        next_attempt_at=None if ended else row.next_attempt_at,
        deadline_at=row.deadline_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        source_stopped_at=row.source_stopped_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        is_left_to_swarm=_is_left_to_swarm(row),
    )


def _read(connection: sa.Connection, *wanted: sa.ColumnElement[bool]) -> list[Migration]:
    query = sa.select(*COLUMNS).select_from(JOINED).where(*wanted).order_by(migrations.c.created_at, migrations.c.id)
    return [read(row) for row in connection.execute(query)]


def _begin(
    connection: sa.Connection, migration: Migration, timeout: timedelta, target: Mapping[str, UUID]
) -> Migration:
    begun = sa.update(migrations).where(migrations.c.id == migration.id)
    values: dict[str, Any] = {
        **target,
        "state": MigrationState.STARTING.value,
        "deadline_at": _NOW + timeout,
        "started_at": sa.func.coalesce(migrations.c.started_at, _NOW),
        "reason": "",
        "attempts": migrations.c.attempts + 1,
        "updated_at": _NOW,
    }
    connection.execute(begun.values(values))
    return fetch(connection, [migration.id])[0]


def _is_left_to_swarm(row: Any) -> bool:
    """Tell whether the swarm moves it by itself: whatever is ordered is an attempt."""
    after_failure = row.service_id is None and row.cause == MigrationCause.WORKER_FAILED.value
    return after_failure and row.attempts == 0 and row.state == MigrationState.VERIFYING.value


def _known(worker_id: UUID | None) -> list[UUID]:
    return [] if worker_id is None else [worker_id]
