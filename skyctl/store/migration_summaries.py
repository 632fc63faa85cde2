"""Migrations summed up: what has become of those off a worker, and how many are not over."""

from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import MigrationCause, MigrationState
from skyctl.store.tables import migrations

_SUM_UP = sa.text("""
    WITH over AS (
        SELECT source_worker_id FROM container_migrations WHERE summed_up_at IS NULL
        GROUP BY source_worker_id HAVING bool_and(finished_at IS NOT NULL)
    )
    UPDATE container_migrations m SET summed_up_at = skyctl_now()
    FROM over LEFT JOIN container_workers w ON w.id = over.source_worker_id
    WHERE m.source_worker_id = over.source_worker_id AND m.summed_up_at IS NULL
    RETURNING m.source_worker_id, coalesce(w.name, 'a removed worker'), m.cause, m.state,
              coalesce(m.swarm_service_name, (SELECT s.name FROM container_services s WHERE s.id = m.service_id))
""")


class Summary(NamedTuple):
    """The outcome for the containers that were to leave a worker: the names of their services by state."""

    worker_id: UUID
    worker_name: str
    cause: MigrationCause
    by_state: dict[str, list[str]]


def sum_up(connection: sa.Connection) -> list[Summary]:
    """The workers of which nothing is to be moved any more, each once."""
    summaries: dict[UUID, Summary] = {}
    for worker_id, name, cause, state, service in connection.execute(_SUM_UP):
        summary = summaries.setdefault(worker_id, Summary(worker_id, name, MigrationCause(cause), {}))
        summary.by_state.setdefault(state, []).append(service)
    return list(summaries.values())


def unfinished(connection: sa.Connection) -> dict[str, int]:
    """The number of migrations that are not over, by their state, in the order of the states."""
    state = migrations.c.state
    counted = sa.select(state, sa.func.count()).where(migrations.c.finished_at.is_(None)).group_by(state)
    counts = {row[0]: row[1] for row in connection.execute(counted)}
    return {state.value: counts[state.value] for state in MigrationState if state.value in counts}
