"""The monitor's reads and writes of the workers: the suspects, and the conclusions."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from skyctl.documents import records
from skyctl.domain.cluster import HealthPolicy, MassFailure, Worker
from skyctl.domain.fleets import Silence
from skyctl.domain.states import WorkerStatus
from skyctl.store.rows import COLUMNS, KNOWN_STATUS, STATUS, among, on_pages, read
from skyctl.store.tables import mass_failures, workers

_NOW = sa.func.skyctl_now()
_MOST_NAMES = 1000
_FAILURE = [mass_failures.c[name] for name in MassFailure._fields]


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at every worker: whose status may not be what the facts call for, the oldest heartbeat of those that are
    not offline, which flapping workers have settled, and since when the one that changed first has been quiet."""

    suspects: Sequence[UUID]
    settled: Sequence[UUID]
    oldest_heartbeat_at: datetime | None
    quiet_since: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """A status that is to be changed, where it is still the one that was seen; to offline, where the worker has not
    beaten since, either. Whether the worker's engine has failed: then, where it is still away."""

    worker_id: UUID
    previous: WorkerStatus
    heard_at: datetime | None
    status: WorkerStatus
    mass_failure_id: int | None
    engine_failed: bool = False


def survey(
    connection: sa.Connection,
    policy: HealthPolicy,
    silent_since: datetime,
    passed_over: Collection[UUID] = (),
    part: sa.ColumnElement[bool] | None = None,
) -> Survey:
    """Look at every worker of a part, or of all, but those passed over, in one scan: the table of `rules/health`, as a
    query.

    The rule decides; a property test shows that the query misses nobody whom the rule would change.
    """
    c, is_news = workers.c, _is_news(policy, silent_since)
    flaps = c.flapping_since.is_not(None)
    row = connection.execute(
        sa.select(
            sa.func.array_agg(c.id).filter(is_news),
            sa.func.array_agg(c.id).filter(flaps, c.status_changed_at <= _NOW - policy.flap_quiet),
            sa.func.min(c.last_heartbeat_at).filter(STATUS != WorkerStatus.OFFLINE),
            sa.func.min(c.status_changed_at).filter(flaps),
        ).where(*([] if part is None else [part]), *([sa.not_(among(c.id, passed_over))] if passed_over else []))
    ).one()
    return Survey(row[0] or (), row[1] or (), *row[2:])


def extent(connection: sa.Connection) -> tuple[int, int]:
    """Return the file of the workers, another one once they were written anew, and how many pages it has."""
    file, size, page = sa.func.pg_relation_filenode, sa.func.pg_relation_size, sa.func.current_setting("block_size")
    blocks = sa.cast(size(workers.name), sa.BigInteger) / sa.cast(page, sa.BigInteger)
    row = connection.execute(sa.select(file(workers.name), sa.func.floor(blocks))).one()
    return row[0], int(row[1])


def watched() -> sa.ColumnElement[bool]:
    """The workers that are not plainly active, as their index has them: a heartbeat is not what makes one so."""
    return sa.literal_column(
        "(status IS DISTINCT FROM 'active' OR concluded_status IS DISTINCT FROM 'active'"
        " OR drain_requested_at IS NOT NULL OR engine_failed_at IS NOT NULL OR node_down_since IS NOT NULL"
        " OR flapping_since IS NOT NULL)",
        sa.Boolean(),
    )


def these(worker_ids: Iterable[UUID]) -> sa.ColumnElement[bool]:
    """These workers."""
    return among(workers.c.id, worker_ids)


def survey_pages(
    connection: sa.Connection,
    policy: HealthPolicy,
    silent_since: datetime,
    passed_over: Collection[UUID],
    pages: range,
) -> Survey:
    """Look at the workers on these pages of the table for what a heartbeat, or none, makes of one that is plainly
    active, see `watched`; the others' heartbeats count towards the oldest all the same."""
    c = workers.c
    may_be = sa.or_(  # of most it is told by plain figures that there is nothing to conclude
        c.last_heartbeat_at < silent_since,
        c.cpu_percent > policy.cpu_percent,
        c.memory_percent > policy.memory_percent,
        c.disk_percent > policy.disk_percent,
        c.engine_away_since.is_not(None),
        c.last_heartbeat_at <= c.stopped_at,
        c.last_heartbeat_at.is_(None),
    )
    row = connection.execute(
        sa.select(
            sa.func.array_agg(c.id).filter(may_be, _is_news(policy, silent_since)),
            sa.func.min(c.last_heartbeat_at).filter(STATUS != WorkerStatus.OFFLINE),
        ).where(*on_pages(pages), *([sa.not_(among(c.id, passed_over))] if passed_over else []))
    ).one()
    return Survey(row[0] or (), (), row[1], None)


def _is_news(policy: HealthPolicy, silent_since: datetime) -> sa.ColumnElement[bool]:
    c, engine_fails = workers.c, _engine_fails(policy)
    concluded = _concluded(policy, silent_since, engine_fails)
    has_failed = sa.and_(engine_fails, concluded.in_([WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING]))
    return sa.or_(
        concluded != STATUS,
        c.concluded_status.is_distinct_from(concluded),
        has_failed != c.engine_failed_at.is_not(None),
    )


def _engine_fails(policy: HealthPolicy) -> sa.ColumnElement[bool]:
    c = workers.c
    return sa.or_(
        sa.and_(
            c.engine_away_seen_at == c.last_heartbeat_at,
            c.engine_away_seen_at - c.engine_away_since > policy.engine_grace,
        ),
        sa.and_(c.last_heartbeat_at.is_not(None), c.node_down_seen_at - c.node_down_since > policy.engine_grace),
    ).is_(sa.true())


def _concluded(
    policy: HealthPolicy, silent_since: datetime, engine_fails: sa.ColumnElement[bool]
) -> sa.ColumnElement[str]:
    c = workers.c
    to_drain = sa.or_(
        c.drain_requested_at.is_not(None), sa.and_(STATUS == WorkerStatus.DRAINING, c.undrained_at.is_(None))
    )
    return sa.case(
        (
            sa.and_(
                c.stopped_at.is_not(None), sa.or_(c.last_heartbeat_at.is_(None), c.last_heartbeat_at <= c.stopped_at)
            ),
            WorkerStatus.OFFLINE,
        ),
        (
            sa.and_(
                KNOWN_STATUS == WorkerStatus.OFFLINE,
                c.last_heartbeat_at < c.status_changed_at - policy.heartbeat_timeout,
            ),
            WorkerStatus.OFFLINE,
        ),
        (c.last_heartbeat_at < silent_since, WorkerStatus.OFFLINE),
        (to_drain, WorkerStatus.DRAINING),
        (c.last_heartbeat_at.is_(None), WorkerStatus.PENDING),
        (engine_fails, WorkerStatus.UNHEALTHY),
        (
            sa.or_(
                _cpu_lasts(policy),
                c.memory_percent > policy.memory_percent,
                c.disk_percent > policy.disk_percent,
            ),
            WorkerStatus.UNHEALTHY,
        ),
        else_=WorkerStatus.ACTIVE,
    )


def _cpu_lasts(policy: HealthPolicy) -> sa.ColumnElement[bool]:
    c, beats = workers.c, policy.cpu_heartbeats
    is_high = c.cpu_percent > policy.cpu_percent
    in_a_row = sa.and_(
        sa.func.cardinality(c.recent_cpu) >= beats, sa.literal(policy.cpu_percent) < sa.all_(c.recent_cpu[1:beats])
    )
    still = sa.and_(is_high, KNOWN_STATUS == WorkerStatus.UNHEALTHY, c.engine_failed_at.is_(None))
    return sa.case((c.recent_cpu[1] == c.cpu_percent, sa.or_(in_a_row, still)), else_=is_high)


def fetch(connection: sa.Connection, worker_ids: Collection[UUID]) -> list[Worker]:
    """These workers, by name."""
    query = sa.select(*COLUMNS).where(among(workers.c.id, worker_ids))
    return [read(row) for row in connection.execute(query.order_by(workers.c.name, workers.c.id))]


def change(connection: sa.Connection, changes: Sequence[Change], policy: HealthPolicy) -> set[UUID]:
    """Change statuses that are still those that were seen, see `Change`; whose were changed.

    A row that somebody else holds is left alone, so that nothing here ever waits for a heartbeat that waits for it.
    """
    values = {"changes": records.dump(changes), "grace": policy.engine_grace}
    return set(connection.execute(_CHANGE, values).scalars().all())


# A drain that the panel wrote as a status becomes the fact that it stands for before another status takes its place.
# Where nothing has changed but what the panel wrote, that alone is set right.
_CHANGE = sa.text("""
    WITH free AS (
        SELECT w.id, d.status, d.mass_failure_id AS failure, d.engine_failed,
               coalesce(w.concluded_status, w.status, 'pending') <> d.status
               OR d.engine_failed <> (w.engine_failed_at IS NOT NULL) AS is_change
        FROM json_to_recordset(CAST(:changes AS json))
             AS d (worker_id uuid, previous text, heard_at timestamptz, status text, mass_failure_id bigint,
                   engine_failed boolean)
        JOIN container_workers w ON w.id = d.worker_id AND coalesce(w.status, 'pending') = d.previous
            AND (d.status <> 'offline' OR w.last_heartbeat_at IS NOT DISTINCT FROM d.heard_at)
            AND (NOT d.engine_failed
                 OR greatest(w.engine_away_seen_at - w.engine_away_since, w.node_down_seen_at - w.node_down_since)
                    > CAST(:grace AS interval))
        FOR NO KEY UPDATE OF w SKIP LOCKED
    )
    UPDATE container_workers AS w
    SET status = free.status, concluded_status = free.status, updated_at = skyctl_now(),
        status_changed_at = CASE WHEN is_change THEN skyctl_now() ELSE w.status_changed_at END,
        mass_failure_id = CASE WHEN is_change THEN free.failure ELSE w.mass_failure_id END,
        engine_failed_at = CASE WHEN NOT is_change THEN w.engine_failed_at
                                WHEN free.engine_failed THEN skyctl_now() END,
        drain_requested_at = CASE WHEN free.status <> 'draining' AND w.status = 'draining' AND w.undrained_at IS NULL
                                  THEN coalesce(w.drain_requested_at, skyctl_now()) ELSE w.drain_requested_at END,
        undrained_at = NULL
    FROM free WHERE w.id = free.id
    RETURNING w.id
""")


def begin_flapping(connection: sa.Connection, worker_ids: Iterable[UUID]) -> list[Worker]:
    """Note that these workers flap; those of which it was not known."""
    flapping = sa.update(workers).where(among(workers.c.id, worker_ids), workers.c.flapping_since.is_(None))
    return [read(row) for row in connection.execute(flapping.values(flapping_since=_NOW).returning(*COLUMNS))]


def end_flapping(connection: sa.Connection, worker_ids: Iterable[UUID], quiet: timedelta) -> list[Worker]:
    """Note that those of these workers which have not changed for so long flap no more; which they are. See
    `change`."""
    c = workers.c
    free = sa.select(c.id).where(
        among(c.id, worker_ids), c.flapping_since.is_not(None), c.status_changed_at <= _NOW - quiet
    )
    settled = sa.update(workers).where(c.id.in_(free.with_for_update(skip_locked=True, key_share=True)))
    return [read(row) for row in connection.execute(settled.values(flapping_since=None).returning(*COLUMNS))]


def flapping(connection: sa.Connection, worker_ids: Iterable[UUID], before: int) -> set[UUID]:
    """Of these workers, those that flapped when the event of this number was written."""
    latest = sa.text("""
        SELECT DISTINCT ON (worker_id) worker_id, kind FROM worker_events
        WHERE worker_id = ANY (CAST(:ids AS uuid[])) AND kind IN ('flapping', 'settled') AND seq <= :seq
        ORDER BY worker_id, seq DESC
    """)
    rows = connection.execute(latest, {"ids": list(worker_ids), "seq": before})
    return {worker_id for worker_id, kind in rows if kind == "flapping"}


def silences(connection: sa.Connection, missed_since: datetime, not_before: datetime) -> list[Silence]:
    """By region: how many workers beat last within this time, or lost their engine since its beginning, and belong to
    no mass failure; and how many could take containers."""
    rows = connection.execute(_SILENCES, {"missed_since": missed_since, "not_before": not_before, "most": _MOST_NAMES})
    return [Silence(region, silent, schedulable, names or ()) for region, silent, schedulable, names in rows]


_SILENCES = sa.text("""
    WITH seen AS (
        SELECT w.name, r.region, coalesce(w.status, 'pending') AS status,
               coalesce(r.since >= :not_before, false)
               AND (w.stopped_at IS NULL OR w.stopped_at < w.last_heartbeat_at) AND w.drain_requested_at IS NULL
               AND NOT EXISTS (SELECT FROM mass_failures f WHERE f.lifted_at IS NULL
                               AND (f.region IS NULL OR f.region = r.region) AND f.detected_at >= r.since) AS silent
        FROM container_workers w
        CROSS JOIN LATERAL (SELECT CASE jsonb_typeof(w.metadata -> 'region')
                                   WHEN 'string' THEN w.metadata ->> 'region' END AS region,
                                   least(CASE WHEN w.last_heartbeat_at < :missed_since THEN w.last_heartbeat_at END,
                                         w.engine_away_since, w.node_down_since) AS since) AS r
    )
    SELECT region, count(*) FILTER (WHERE silent), count(*) FILTER (WHERE silent OR status IN ('active', 'unhealthy')),
           (array_agg(name ORDER BY name) FILTER (WHERE silent))[1:CAST(:most AS integer)]
    FROM seen GROUP BY region ORDER BY region NULLS FIRST
""")


def declare_mass_failure(connection: sa.Connection, silence: Silence) -> int:
    """Write down a mass failure; its number."""
    values = {"region": silence.region, "silent": silence.silent, "schedulable": silence.schedulable}
    number: int = connection.execute(sa.insert(mass_failures).values(values).returning(mass_failures.c.id)).scalar_one()
    return number


def open_mass_failures(connection: sa.Connection) -> list[MassFailure]:
    """Those that are not lifted, the latest first."""
    c = mass_failures.c
    rows = connection.execute(sa.select(*_FAILURE).where(c.lifted_at.is_(None)).order_by(c.id.desc()))
    return [MassFailure(*row) for row in rows]


def mass_failure(connection: sa.Connection, number: int) -> MassFailure | None:
    """One mass failure, lifted or not."""
    row = connection.execute(sa.select(*_FAILURE).where(mass_failures.c.id == number)).one_or_none()
    return MassFailure(*row) if row else None


def lift_mass_failures(connection: sa.Connection, failures: Iterable[int], by: str) -> None:
    """Lift mass failures: what fails is moved automatically again."""
    lifted = sa.update(mass_failures).where(mass_failures.c.id.in_(list(failures)))
    connection.execute(lifted.values(lifted_at=_NOW, lifted_by=by))


def with_silent_members(connection: sa.Connection, missed_since: datetime) -> set[int]:
    """The mass failures, not lifted, of which a worker is still silent or without its engine, or on its way there."""
    return set(connection.execute(_WITH_SILENT_MEMBERS, {"missed_since": missed_since}).scalars())


_WITH_SILENT_MEMBERS = sa.text("""
    SELECT f.id FROM mass_failures f WHERE f.lifted_at IS NULL AND EXISTS (
        SELECT FROM container_workers w
        WHERE ((coalesce(w.concluded_status, w.status) = 'offline'
                OR coalesce(w.concluded_status, w.status) IN ('unhealthy', 'draining')
                   AND w.engine_failed_at IS NOT NULL)
               AND w.mass_failure_id = f.id)
           OR (w.status IN ('active', 'unhealthy')
               AND (w.last_heartbeat_at < :missed_since AND w.last_heartbeat_at <= f.detected_at
                    OR w.engine_failed_at IS NULL AND least(w.engine_away_since, w.node_down_since) <= f.detected_at)
               AND (w.stopped_at IS NULL OR w.stopped_at < w.last_heartbeat_at)
               AND (f.region IS NULL OR w.metadata -> 'region' = to_jsonb(f.region)))
    )
""")
