"""What the swarm places by itself and a failed worker had, in the database: where to look, and what is written down."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import MigrationPolicy, MigrationState
from skyctl.domain.workloads import Migration
from skyctl.store import drains
from skyctl.store.migrations import fetch
from skyctl.store.rows import among
from skyctl.store.tables import workers

_NOW = sa.func.skyctl_now()
_C = workers.c

# The workers that the second half of the query of `store/evictions` finds, and those that are drained as well.
_FAILED = sa.text("""
    SELECT id, swarm_node_confirmed, mass_failure_id, is_seen,
           drain_requested_at IS NOT NULL AND drain_finished_at IS NULL
           AND (drain_deadline_at > skyctl_now()) IS NOT FALSE AS is_drained
    FROM container_workers,
         LATERAL (SELECT coalesce(failure_seen_at >= CASE WHEN status = 'offline'
                                                          THEN coalesce(status_changed_at, created_at, '-infinity')
                                                     ELSE engine_failed_at END, false)) AS noted (is_seen)
    WHERE (status = 'offline' OR status IN ('unhealthy', 'draining') AND engine_failed_at IS NOT NULL)
      AND NOT (stopped_at IS NOT NULL AND (last_heartbeat_at IS NULL OR last_heartbeat_at <= stopped_at))
      AND swarm_node_confirmed IS NOT NULL AND (node_lost_at IS NULL OR NOT is_seen)
""")
_POLICIES = sa.text("""
    SELECT d.swarm_service_id, skyctl_migration_policy(o.settings)
    FROM container_deployments d
    JOIN container_services s ON s.current_deployment_id = d.id
    JOIN organizations o ON o.id = s.organization_id
    WHERE d.swarm_service_id = ANY (:services)
""")
# A node that is lost may have been up for a moment when its worker fails anew: what it had before is not told again.
_INSERT = sa.text("""
    INSERT INTO container_migrations
        (swarm_service_id, swarm_service_name, source_worker_id, cause, state, reason, mass_failure_id,
         created_at, updated_at, next_attempt_at, started_at, deadline_at)
    SELECT e.service_id, e.name, e.worker_id, 'worker_failed', e.state, e.reason, e.mass_failure_id,
           skyctl_now(), skyctl_now(), skyctl_now(),
           CASE WHEN e.state = 'verifying' THEN skyctl_now() END,
           CASE WHEN e.state = 'verifying' THEN skyctl_now() + CAST(:timeout AS interval) END
    FROM unnest(CAST(:services AS text[]), CAST(:names AS text[]), CAST(:workers AS uuid[]), CAST(:states AS text[]),
                CAST(:reasons AS text[]), CAST(:failures AS bigint[]))
         AS e (service_id, name, worker_id, state, reason, mass_failure_id)
    WHERE NOT EXISTS (SELECT FROM container_migrations m
                      WHERE m.swarm_service_id = e.service_id AND m.source_worker_id = e.worker_id
                            AND (m.finished_at IS NULL
                                 OR m.cause = 'worker_failed' AND m.source_stopped_at IS NULL
                                    AND m.created_at >= (SELECT w.node_lost_at FROM container_workers w
                                                         WHERE w.id = e.worker_id)))
    ON CONFLICT DO NOTHING
    RETURNING id
""")
_LEAVE = """
    UPDATE container_migrations
    SET state = 'verifying', reason = :reason, mass_failure_id = NULL, attempts = 0, updated_at = skyctl_now(),
        started_at = coalesce(started_at, skyctl_now()), deadline_at = skyctl_now() + CAST(:timeout AS interval)
    WHERE finished_at IS NULL AND state IN ('awaiting_approval', 'held', 'queued', 'failed')
      AND service_id IS NULL AND cause = 'worker_failed' AND {} = ANY (CAST(:ids AS uuid[]))
    RETURNING id
"""
_LEAVE_OFF, _LEAVE_THESE = (sa.text(_LEAVE.format(column)) for column in ("source_worker_id", "id"))


class FailedNode(NamedTuple):
    """A worker that has failed, its node that was confirmed last, and the mass failure by which it failed, lifted or
    not. `is_seen`: it is written down what was there when it failed. `is_drained`: its drain moves what is there."""

    worker_id: UUID
    node_id: str
    mass_failure_id: int | None
    is_seen: bool
    is_drained: bool


class Moved(NamedTuple):
    """A service, by the swarm's id and name, that leaves a failed worker: in which state its migration begins, for what
    reason, and which mass failure holds it."""

    swarm_service_id: str
    name: str
    worker_id: UUID
    state: MigrationState
    reason: str
    mass_failure_id: int | None = None


def failed_nodes(connection: sa.Connection) -> list[FailedNode]:
    """Return the failed workers of whose nodes it is not known that the swarm has lost them, and those that failed anew
    since."""
    return [FailedNode(*row) for row in connection.execute(_FAILED)]


def policies(connection: sa.Connection, swarm_service_ids: Collection[str]) -> dict[str, MigrationPolicy]:
    """Return the policies of the organizations that have deployed these services, by the swarm's ids."""
    if not swarm_service_ids:
        return {}
    rows = connection.execute(_POLICIES, {"services": list(swarm_service_ids)})
    return {service_id: MigrationPolicy(policy) for service_id, policy in rows}


def insert(connection: sa.Connection, moved: Sequence[Moved], timeout: timedelta) -> list[Migration]:
    """Write down a migration for each of these that is in none off the same worker; return the new ones. What the
    swarm does by itself has so long for it."""
    if not moved:
        return []
    names = ("services", "names", "workers", "states", "reasons", "failures")
    values: dict[str, Any] = {
        name: list(column) for name, column in zip(names, zip(*moved, strict=True), strict=True)
    } | {"timeout": timeout}
    values["states"] = [state.value for state in values["states"]]
    return fetch(connection, connection.execute(_INSERT, values).scalars())


def leave_off(
    connection: sa.Connection, worker_ids: Sequence[UUID], reason: str, timeout: timedelta
) -> list[Migration]:
    """Leave to the swarm what has not started off these workers, which have failed; return it as it is then."""
    if not worker_ids:
        return []
    values = {"ids": list(worker_ids), "reason": reason, "timeout": timeout}
    return fetch(connection, connection.execute(_LEAVE_OFF, values).scalars())


def leave(
    connection: sa.Connection, migrations: Sequence[Migration], reason: str, timeout: timedelta
) -> list[Migration]:
    """Leave these to the swarm, where they still have not started; return them as they are then."""
    if not migrations:
        return []
    values = {"ids": [migration.id for migration in migrations], "reason": reason, "timeout": timeout}
    return fetch(connection, connection.execute(_LEAVE_THESE, values).scalars())


def note_seen(connection: sa.Connection, worker_ids: Sequence[UUID], lost: Sequence[UUID]) -> None:
    """Note that it is written down what was on the nodes of these workers, and which of the nodes the swarm has
    lost."""
    if not worker_ids:
        return
    drains.hold_heartbeats(connection)
    lost_at = sa.case((among(_C.id, lost), _NOW), else_=_C.node_lost_at)
    seen = sa.update(workers).where(among(_C.id, worker_ids))
    connection.execute(seen.values(failure_seen_at=_NOW, node_lost_at=lost_at, updated_at=_NOW))
