"""Migrations of what the swarm places by itself, in the database: which drains call for some."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import MigrationState
from skyctl.domain.workloads import Migration
from skyctl.store.migrations import fetch

# One that did not move is not asked for again by the same drain.
_INSERT = sa.text("""
    INSERT INTO container_migrations
        (swarm_service_id, swarm_service_name, source_worker_id, cause, state, created_at, updated_at, next_attempt_at)
    SELECT e.service_id, e.name, w.id, 'drain', 'queued', skyctl_now(), skyctl_now(), skyctl_now()
    FROM unnest(CAST(:services AS text[]), CAST(:names AS text[]), CAST(:workers AS uuid[]))
         AS e (service_id, name, worker_id)
    JOIN container_workers w ON w.id = e.worker_id AND w.drain_requested_at IS NOT NULL AND w.drain_finished_at IS NULL
                                AND (w.drain_deadline_at IS NULL OR w.drain_deadline_at > skyctl_now())
    WHERE NOT EXISTS (SELECT FROM container_migrations m
                      WHERE m.swarm_service_id = e.service_id AND m.source_worker_id = w.id
                            AND (m.finished_at IS NULL
                                 OR (m.state <> 'completed' AND m.created_at >= w.drain_requested_at)))
    ON CONFLICT DO NOTHING
    RETURNING id
""")
_COMPLETE = sa.text("""
    UPDATE container_migrations m
    SET state = 'completed', reason = e.reason, target_worker_id = w.id, updated_at = skyctl_now(),
        finished_at = skyctl_now(),
        source_stopped_at = CASE WHEN e.stopped THEN skyctl_now() ELSE m.source_stopped_at END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:nodes AS text[]),
                CAST(:stopped AS boolean[])) AS e (id, state, reason, node_id, stopped)
    LEFT JOIN container_workers w ON w.swarm_node_id = e.node_id AND w.swarm_node_confirmed = e.node_id
    WHERE m.id = e.id AND m.state = e.state
    RETURNING m.id
""")


class Left(NamedTuple):
    """A migration whose service has left a node, in the state in which it was seen: what remains to be said, the node
    where it runs, and whether nothing is left of what was there."""

    migration_id: UUID
    state: MigrationState
    reason: str
    node_id: str | None
    source_stopped: bool


class Leaving(NamedTuple):
    """A service, by the swarm's id and name, that is to leave a worker's node."""

    swarm_service_id: str
    name: str
    worker_id: UUID


def insert(connection: sa.Connection, leaving: Sequence[Leaving]) -> list[Migration]:
    """Write down a migration for each of these that the drain of its worker has not asked for; return the new ones."""
    if not leaving:
        return []
    service_ids, names, worker_ids = zip(*leaving, strict=True)
    values = {"services": list(service_ids), "names": list(names), "workers": list(worker_ids)}
    return fetch(connection, connection.execute(_INSERT, values).scalars())


def complete(connection: sa.Connection, left: Sequence[Left]) -> dict[UUID, Migration]:
    """Complete those of these migrations that are still in the state in which they were seen; return them as they are
    then, by their ids."""
    if not left:
        return {}
    columns = (list(column) for column in zip(*left, strict=True))
    values = dict(zip(("ids", "states", "reasons", "nodes", "stopped"), columns, strict=True))
    return {done.id: done for done in fetch(connection, connection.execute(_COMPLETE, values).scalars())}
