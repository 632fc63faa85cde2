"""Evictions in the database: the containers that may have to leave, and the migrations that may be called off.

The queries are the conditions of `rules/eviction`, so that an idle pass reads no rows however many workers there are.
The rule decides about each row, and says in which state and for which reason; a property test compares the two.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.cluster import Worker
from skyctl.domain.evictions import PlacedContainer, UnstartedMigration
from skyctl.domain.states import DeploymentStatus, MigrationCause, MigrationPolicy, MigrationState, ServiceStatus
from skyctl.domain.workloads import Migration
from skyctl.store import health
from skyctl.store.migrations import fetch

# A service with an unfinished migration is left out, as is a deployment that was migrated since its worker's trouble.
_CANDIDATES = sa.text("""
    WITH leaving AS (
        SELECT id, true AS is_drain,
               greatest(drain_requested_at, CASE status WHEN 'offline' THEN coalesce(status_changed_at, created_at)
                                            WHEN 'unhealthy' THEN engine_failed_at
                                            WHEN 'draining' THEN engine_failed_at END) AS since
        FROM container_workers
        WHERE drain_requested_at IS NOT NULL AND drain_finished_at IS NULL
          AND (drain_deadline_at IS NULL OR drain_deadline_at > skyctl_now())
        UNION ALL
        SELECT id, false, CASE WHEN status = 'offline' THEN coalesce(status_changed_at, created_at, '-infinity')
                          ELSE engine_failed_at END
        FROM container_workers
        WHERE (status = 'offline' OR status IN ('unhealthy', 'draining') AND engine_failed_at IS NOT NULL)
          AND (drain_requested_at IS NULL OR drain_finished_at IS NOT NULL OR drain_deadline_at <= skyctl_now())
          AND NOT (stopped_at IS NOT NULL AND (last_heartbeat_at IS NULL OR last_heartbeat_at <= stopped_at))
    )
    SELECT s.id AS service_id, d.id AS deployment_id, d.status AS deployment_status, l.id AS worker_id,
           skyctl_migration_policy(organizations.settings) AS policy, past.last_migration_at
    FROM leaving l
    JOIN container_deployments d ON d.worker_id = l.id AND d.status IN ('deploying', 'running')
                                    AND d.swarm_service_id IS NOT NULL AND d.untold_since IS NULL
    JOIN container_services s ON s.current_deployment_id = d.id
    JOIN organizations ON organizations.id = s.organization_id
    CROSS JOIN LATERAL (SELECT max(m.created_at) AS last_migration_at FROM container_migrations m
                        WHERE m.source_deployment_id = d.id) AS past
    WHERE (l.is_drain OR skyctl_migration_policy(organizations.settings) <> 'none')
      AND NOT EXISTS (SELECT FROM container_migrations m WHERE m.service_id = s.id AND m.finished_at IS NULL)
      AND (past.last_migration_at >= l.since) IS NOT TRUE
""")
_INSERT = sa.text("""
    INSERT INTO container_migrations
        (service_id, source_deployment_id, source_worker_id, cause, state, mass_failure_id, reason,
         created_at, updated_at, next_attempt_at)
    SELECT e.service_id, e.deployment_id, e.worker_id, e.cause, e.state, e.mass_failure_id, e.reason,
           skyctl_now(), skyctl_now(), skyctl_now()
    FROM unnest(CAST(:services AS uuid[]), CAST(:deployments AS uuid[]), CAST(:workers AS uuid[]),
                CAST(:causes AS text[]), CAST(:states AS text[]), CAST(:failures AS bigint[]), CAST(:reasons AS text[]))
         AS e (service_id, deployment_id, worker_id, cause, state, mass_failure_id, reason)
    JOIN container_services s ON s.id = e.service_id AND s.current_deployment_id = e.deployment_id
    RETURNING id
""")
# A worker that was removed has no drain and is not offline: the last two lines find its migrations, too.
_DOUBTFUL = sa.text("""
    SELECT m.id, m.cause, coalesce(s.status, 'running') AS service_status, w.id AS worker_id,
           d.status AS deployment_status,
           s.current_deployment_id IS NOT DISTINCT FROM m.source_deployment_id AS is_current
    FROM container_migrations m
    LEFT JOIN container_services s ON s.id = m.service_id
    LEFT JOIN container_deployments d ON d.id = m.source_deployment_id
    LEFT JOIN container_workers w ON w.id = m.source_worker_id
    WHERE m.finished_at IS NULL AND m.state IN ('awaiting_approval', 'held', 'queued', 'failed')
      AND (s.status = 'deleted' OR s.current_deployment_id IS DISTINCT FROM m.source_deployment_id
           OR d.status NOT IN ('deploying', 'running')
           OR (m.cause = 'drain' AND (w.drain_requested_at IS NULL OR w.drain_deadline_at <= skyctl_now()))
           OR (m.cause = 'worker_failed' AND w.status IS DISTINCT FROM 'offline'
               AND (w.status IN ('unhealthy', 'draining') AND w.engine_failed_at IS NOT NULL) IS NOT TRUE
               AND (w.drain_requested_at IS NULL OR w.drain_finished_at IS NOT NULL)))
""")
_CANCEL = sa.text("""
    UPDATE container_migrations m
    SET state = 'cancelled', finished_at = skyctl_now(), updated_at = skyctl_now(), reason = c.reason
    FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS c (id, reason)
    WHERE m.id = c.id AND m.finished_at IS NULL AND m.state IN ('awaiting_approval', 'held', 'queued', 'failed')
    RETURNING m.id
""")


def candidates(connection: sa.Connection) -> list[PlacedContainer]:
    """Return the containers that must leave their worker, with what the rule needs to say how."""
    rows = connection.execute(_CANDIDATES).all()
    workers = _workers(connection, (row.worker_id for row in rows))
    failures = {failure.id: failure for failure in health.open_mass_failures(connection)} if rows else {}
    return [
        PlacedContainer(
            service_id=row.service_id,
            deployment_id=row.deployment_id,
            deployment_status=DeploymentStatus(row.deployment_status),
            worker=workers[row.worker_id],
            policy=MigrationPolicy(row.policy),
            mass_failure=failures.get(workers[row.worker_id].mass_failure_id or 0),
            last_migration_at=row.last_migration_at,
        )
        for row in rows
        if row.worker_id in workers
    ]


def insert(
    connection: sa.Connection,
    evicted: Sequence[tuple[PlacedContainer, MigrationCause, MigrationState, str, int | None]],
) -> list[Migration]:
    """Write down a migration for each container, its cause, state, reason and mass failure as given."""
    if not evicted:
        return []
    containers, causes, states, reasons, failures = zip(*evicted, strict=True)
    values: dict[str, Any] = {
        "services": [container.service_id for container in containers],
        "deployments": [container.deployment_id for container in containers],
        "workers": [container.worker.id for container in containers],
        "causes": list(causes),
        "states": list(states),
        "failures": list(failures),
        "reasons": list(reasons),
    }
    return fetch(connection, connection.execute(_INSERT, values).scalars())


def doubtful(connection: sa.Connection) -> list[UnstartedMigration]:
    """Return the migrations that have not started and that nothing calls for any more."""
    rows = connection.execute(_DOUBTFUL).all()
    workers = _workers(connection, (row.worker_id for row in rows if row.worker_id))
    return [
        UnstartedMigration(
            id=row.id,
            cause=MigrationCause(row.cause),
            service_status=ServiceStatus(row.service_status),
            is_current=row.is_current,
            deployment_status=row.deployment_status and DeploymentStatus(row.deployment_status),
            worker=workers.get(row.worker_id),
        )
        for row in rows
    ]


def cancel(connection: sa.Connection, reasons: Sequence[tuple[UUID, str]]) -> list[Migration]:
    """Cancel these migrations, each for its reason, where they still have not started; return the cancelled ones."""
    if not reasons:
        return []
    ids, sentences = zip(*reasons, strict=True)
    return fetch(connection, connection.execute(_CANCEL, {"ids": list(ids), "reasons": list(sentences)}).scalars())


def _workers(connection: sa.Connection, worker_ids: Iterable[UUID]) -> dict[UUID, Worker]:
    wanted = set(worker_ids)
    return {worker.id: worker for worker in health.fetch(connection, wanted)} if wanted else {}
