"""Workers in the database."""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from skyctl.documents.heartbeats import stored_image_volumes
from skyctl.domain.cluster import HealthPolicy, Heartbeat, ImageVolumes, Worker
from skyctl.domain.states import WorkerStatus
from skyctl.store.db import HeartbeatConnection
from skyctl.store.rows import COLUMNS, CONFIRMED, IS_ODD, SEARCHED_NAME, STATUS, among, beginning, begins, read
from skyctl.store.tables import deployments, workers

OCCUPYING = ("pending", "building", "deploying", "running")

_PERCENTS = [
    sa.func.coalesce(column, 0.0)
    for column in (workers.c.cpu_percent, workers.c.memory_percent, workers.c.disk_percent)
]
_NOW = sa.func.skyctl_now()
_IMAGE_VOLUMES = sa.text("""
    SELECT w.swarm_node_id, told.key, told.value
    FROM container_workers w,
         jsonb_each(CASE jsonb_typeof(w.image_volumes) WHEN 'object' THEN w.image_volumes END) AS told
    WHERE w.swarm_node_id = w.swarm_node_confirmed AND w.swarm_node_id = ANY (CAST(:nodes AS text[]))
      AND told.key = ANY (CAST(:services AS text[]))
""")
_NO_OFFER: dict[str, Any] = {"agent_offered": None, "agent_offered_at": None, "agent_signature": None}

# The write itself checks the token: it touches only the worker whose stored hash is that of the token. A worker that
# never registers has used its invitation by its first heartbeat, and the end of the invitation binds it no more. What
# else the answer has to carry (a reply) is read only where there is any.
_RECORD_LOADS: LiteralString = """
    WITH clock AS MATERIALIZED (SELECT now(), skyctl_now() AS at), stored AS (
        UPDATE container_workers AS w
        SET last_heartbeat_at = clock.at,
            current_load = jsonb_build_object('cpuPercent', d.cpu, 'memoryPercent', d.memory, 'diskPercent', d.disk,
                                              'containerCount', d.containers),
            engine_away_since = CASE WHEN d.silent IS NOT NULL THEN
                CASE WHEN w.engine_away_seen_at = w.last_heartbeat_at AND clock.at - w.last_heartbeat_at <= %(gap)s
                     THEN w.engine_away_since ELSE clock.at - least(make_interval(secs => d.silent), %(grace)s) END END,
            engine_away_seen_at = CASE WHEN d.silent IS NOT NULL THEN clock.at END,
            recent_cpu = CASE WHEN clock.at - w.last_heartbeat_at <= %(timeout)s AND w.recent_cpu[1] = w.cpu_percent
                              THEN (d.cpu || w.recent_cpu)[:10] ELSE ARRAY[d.cpu] END,
            image_volumes = coalesce(d.volumes, w.image_volumes)
        FROM unnest(%(ids)s::uuid[], %(hashes)s::text[], %(cpu)s::float8[], %(memory)s::float8[], %(disk)s::float8[],
                    %(containers)s::int[], %(silent)s::float8[], %(volumes)s::jsonb[])
             WITH ORDINALITY AS d (id, hash, cpu, memory, disk, containers, silent, volumes, position), clock
        WHERE w.id = d.id AND (w.auth_token_hash = d.hash OR w.next_token_hash = d.hash)
          AND (w.auth_token_expires_at IS NULL OR w.auth_token_expires_at > clock.at
               OR w.hostname = '' AND w.last_heartbeat_at IS NOT NULL)
          AND clock.now <= %(until)s
        RETURNING d.position, coalesce(w.status, 'pending') AS status,
                  w.next_token_hash IS NOT NULL OR w.agent_offered IS NOT NULL AS reply_pending,
                  greatest(w.engine_away_seen_at - w.engine_away_since, w.node_down_seen_at - w.node_down_since)
                      > %(grace)s IS TRUE AS engine_fails,
                  w.engine_failed_at IS NOT NULL AS engine_failed,
                  d.memory > %(most_memory)s OR d.disk > %(most_disk)s
                      OR cardinality(w.recent_cpu) >= %(beats)s AND %(most_cpu)s < ALL (w.recent_cpu[:%(beats)s])
                      OR d.cpu > %(most_cpu)s AND w.status = 'unhealthy' AND w.engine_failed_at IS NULL
                      AS exhausted
    )
    SELECT now, status, reply_pending, exhausted, engine_fails, engine_failed, array_agg(position - 1)
    FROM clock LEFT JOIN stored ON true GROUP BY now, status, reply_pending, exhausted, engine_fails, engine_failed
"""


class Stored(NamedTuple):
    """Heartbeats that were stored, by their positions: of workers with this status; whether a reply is pending for
    them, whether they are exhausted, whether their engines have been away for too long, by the agents or by the swarm,
    and whether the monitor has concluded that."""

    status: WorkerStatus
    reply_pending: bool
    exhausted: bool
    engine_fails: bool
    engine_failed: bool
    positions: list[int]


async def record_loads(
    connection: HeartbeatConnection, heartbeats: Sequence[Heartbeat], policy: HealthPolicy
) -> list[Stored]:
    """Store the heartbeats whose token is the worker's own, or its next one, and still good; return which of them were
    stored.

    At least one heartbeat, and at most one a worker and token: the caller keeps the last.
    """
    ids, hashes, loads, silent, volumes = zip(*heartbeats, strict=True)
    away = ("NULL" if each is None else each for each in silent)
    columns = (ids, hashes, *zip(*loads, strict=True), away, map(_json_element, volumes))
    names = ("ids", "hashes", "cpu", "memory", "disk", "containers", "silent", "volumes")
    # what an agent said before a longer gap is no word on the time since
    limits = {
        "grace": policy.engine_grace,
        "gap": max(policy.engine_grace, 2 * policy.heartbeat_interval),
        "timeout": policy.heartbeat_timeout,
        "most_cpu": policy.cpu_percent,
        "most_memory": policy.memory_percent,
        "most_disk": policy.disk_percent,
        "beats": policy.cpu_heartbeats,
    }
    rows = await connection.fetch(_RECORD_LOADS, {**dict(zip(names, map(_array, columns), strict=True)), **limits})
    return [Stored(WorkerStatus(status), *what) for _, status, *what in rows if status is not None]


# It changes nothing, and needs the lock on the table and the right to write that a heartbeat needs.
_PROBE: LiteralString = """
    WITH clock AS MATERIALIZED (SELECT now()),
         probe AS (UPDATE container_workers SET last_heartbeat_at = last_heartbeat_at WHERE false RETURNING id)
    SELECT now FROM clock
"""


async def probe(connection: HeartbeatConnection) -> None:
    """Return once a heartbeat could be written. Raises DatabaseUnavailable."""
    await connection.fetch(_PROBE, {})


def _array(values: Iterable[object]) -> str:
    """A PostgreSQL array literal of ids, hashes or numbers, none of which needs quotes; 5 x faster than the
    driver's."""
    return "{" + ",".join(map(str, values)) + "}"


def _json_element(document: object) -> str:
    """A document as an element of such an array."""
    if document is None:
        return "NULL"
    text = json.dumps(document)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def insert_invited(
    connection: sa.Connection, worker_id: UUID, name: str, token_hash: str, expires_at: datetime | None
) -> None:
    """A worker that is invited and not yet seen, unless there is one of this id."""
    values = {"id": worker_id, "name": name, "hostname": "", "ip_address": "0.0.0.0", "status": WorkerStatus.PENDING}
    connection.execute(
        insert(workers)
        .values(**values, auth_token_hash=token_hash, auth_token_expires_at=expires_at)
        .on_conflict_do_nothing(index_elements=["id"])
    )


def exists(connection: sa.Connection, worker_id: UUID) -> bool:
    """Tell whether there is a worker of this id."""
    return bool(connection.execute(sa.select(sa.exists().where(workers.c.id == worker_id))).scalar_one())


def get(connection: sa.Connection, worker_id: UUID, *, lock: bool = False) -> Worker | None:
    """One worker by its id."""
    query = sa.select(*COLUMNS).where(workers.c.id == worker_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return read(row) if row else None


def matching(connection: sa.Connection, reference: str, limit: int = 3) -> list[Worker]:
    """Workers whose id is or begins with the reference, or whose name is it; those of that exact name first."""
    is_name, by_id = workers.c.name == reference, beginning(workers.c.id, reference)
    query = sa.select(*COLUMNS).where(is_name if by_id is None else sa.or_(is_name, by_id))
    query = query.order_by(is_name.desc(), workers.c.name, workers.c.id).limit(limit)
    return [read(row) for row in connection.execute(query)]


def named(connection: sa.Connection, name: str) -> bool:
    """Tell whether a worker has this name; nobody else may ask for the same name until this transaction ends."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))
    return bool(connection.execute(sa.select(sa.exists().where(workers.c.name == name))).scalar_one())


def references(connection: sa.Connection, prefix: str, limit: int = 100) -> list[str]:
    """The plain names, and of the workers of other names the ids, that begin with the prefix; each set by its index,
    which ends after so many."""
    name, by_id = workers.c.name, beginning(workers.c.id, prefix)
    names = sa.select(name).where(
        begins(SEARCHED_NAME, prefix), name.startswith(prefix, autoescape=True), sa.not_(IS_ODD)
    )
    found = list(connection.execute(names.order_by(SEARCHED_NAME).limit(limit)).scalars())
    if by_id is not None:
        ids = sa.select(sa.cast(workers.c.id, sa.Text)).where(IS_ODD, by_id).order_by(workers.c.id).limit(limit)
        found += connection.execute(ids).scalars()
    return sorted(found)[:limit]


def delete(connection: sa.Connection, worker_id: UUID) -> None:
    """Remove a worker; the database writes the event."""
    connection.execute(sa.delete(workers).where(workers.c.id == worker_id))


def occupying_deployments(connection: sa.Connection, worker_id: UUID) -> int:
    """The number of containers on the worker, or on their way to it."""
    there = (deployments.c.worker_id == worker_id, deployments.c.status.in_(OCCUPYING))
    return connection.execute(sa.select(sa.func.count()).select_from(deployments).where(*there)).scalar_one()


def set_labels(connection: sa.Connection, worker_id: UUID, labels: dict[str, str]) -> None:
    """Set these keys of a worker's metadata; one that is empty is taken away."""
    kept = sa.func.coalesce(workers.c.metadata, sa.text("'{}'::jsonb")).op("-")(sa.cast(list(labels), ARRAY(sa.Text)))
    new = sa.cast({key: value for key, value in labels.items() if value}, workers.c.metadata.type)
    labelled = sa.update(workers).where(workers.c.id == worker_id)
    connection.execute(labelled.values(metadata=kept.op("||")(new), updated_at=_NOW))


def note_stopped(connection: sa.Connection, worker_id: UUID) -> None:
    """Note that the worker's agent was stopped on purpose."""
    stopped = sa.update(workers).where(workers.c.id == worker_id)
    # a heartbeat within this transaction was before the stop
    connection.execute(stopped.values(stopped_at=sa.func.skyctl_clock(), updated_at=_NOW))


def offer_agent(connection: sa.Connection, worker_ids: Collection[UUID], sha256: str, signature: str) -> None:
    """Note which agent the answers to these workers' heartbeats offer, with its signature; one that is offered already
    is so by a new order."""
    offered = sa.update(workers).where(among(workers.c.id, worker_ids))
    order = {"agent_offered": sha256, "agent_signature": signature, "agent_offered_at": _NOW}
    connection.execute(offered.values(**order, updated_at=_NOW))


def withdraw_agents(connection: sa.Connection, worker_ids: Iterable[UUID]) -> None:
    """Offer no agent to these workers any more."""
    offered = sa.update(workers).where(among(workers.c.id, worker_ids))
    connection.execute(offered.values(**_NO_OFFER, updated_at=_NOW))


def others_are_offered(connection: sa.Connection, sha256: str) -> bool:
    """Tell whether an agent is offered that `withdraw_other_agents` would withdraw."""
    return bool(connection.execute(sa.select(sa.exists().where(_offered_another(sha256)))).scalar_one())


def withdraw_other_agents(connection: sa.Connection, sha256: str) -> None:
    """Offer no agent any more but this one, and none that is not signed. Heartbeats are held."""
    others = sa.update(workers).where(_offered_another(sha256))
    connection.execute(others.values(**_NO_OFFER, updated_at=_NOW))


def _offered_another(sha256: str) -> sa.ColumnElement[bool]:
    unsigned = workers.c.agent_offered.is_not(None) & workers.c.agent_signature.is_(None)
    return (workers.c.agent_offered != sha256) | unsigned


def everyone(connection: sa.Connection, only: Collection[UUID] | None = None) -> list[Worker]:
    """Every worker, or only these, in the order of their ids."""
    query = sa.select(*COLUMNS) if only is None else sa.select(*COLUMNS).where(among(workers.c.id, only))
    return [read(row) for row in connection.execute(query.order_by(workers.c.id))]


def by_node(connection: sa.Connection, node_ids: Iterable[str]) -> dict[str, UUID]:
    """The workers whose confirmed nodes these are, by the node's id."""
    wanted = (CONFIRMED, workers.c.swarm_node_id.in_(list(node_ids)))
    return {
        row[0]: row[1] for row in connection.execute(sa.select(workers.c.swarm_node_id, workers.c.id).where(*wanted))
    }


def image_volumes(
    connection: sa.Connection, node_ids: Iterable[str], service_ids: Iterable[str]
) -> dict[str, ImageVolumes]:
    """Where containers of these services on these nodes have volumes without a name, as far as the agents of the
    workers whose confirmed nodes they are have said, by the node's id."""
    told: dict[str, dict[str, object]] = {}
    for node_id, service_id, paths in connection.execute(
        _IMAGE_VOLUMES, {"nodes": list(node_ids), "services": list(service_ids)}
    ):
        told.setdefault(node_id, {})[service_id] = paths
    return {node_id: stored_image_volumes(volumes) for node_id, volumes in told.items()}


def names_of(connection: sa.Connection) -> dict[UUID, str]:
    """The name of every worker."""
    return {row[0]: row[1] for row in connection.execute(sa.select(workers.c.id, workers.c.name))}


def nodes(connection: sa.Connection, worker_ids: Iterable[UUID]) -> dict[UUID, str]:
    """The engine's ids of the nodes of these workers, by worker, where they are confirmed."""
    wanted = (among(workers.c.id, worker_ids), CONFIRMED)
    return {
        row[0]: row[1] for row in connection.execute(sa.select(workers.c.id, workers.c.swarm_node_id).where(*wanted))
    }


def worst(connection: sa.Connection, limit: int) -> list[Worker]:
    """The workers that need a look first: those that went offline last, the unhealthy ones, then those of the highest
    load."""
    rank = sa.case((STATUS == WorkerStatus.OFFLINE, 0), (STATUS == WorkerStatus.UNHEALTHY, 1), else_=2)
    fallen_at = sa.case((STATUS == WorkerStatus.OFFLINE, workers.c.status_changed_at))
    order = (rank, fallen_at.desc().nulls_last(), sa.func.greatest(*_PERCENTS).desc(), workers.c.name, workers.c.id)
    # rows are wide: only these are fetched whole
    first = sa.select(workers.c.id).order_by(*order).limit(limit).subquery()
    rows = connection.execute(sa.select(*COLUMNS).join(first, first.c.id == workers.c.id).order_by(*order))
    return [read(row) for row in rows]
