"""Rows that are over and older than they are to be kept: find and remove them, some at a time.

Each kind is looked through in the order of an index, from where the step before ended, so that a step costs the same
however many rows there are and however many of them stay. Nothing here takes the lock of the log of events, and a row
that somebody else holds is left for the next time.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from skyctl.domain.events import EventKind
from skyctl.domain.retention import KeptRows, RetentionPolicy
from skyctl.store.tables import (
    activity_logs,
    alerts,
    deliveries,
    deployments,
    events,
    incidents,
    install_links,
    mass_failures,
    migrations,
    monitor_leases,
    notifications,
    retention_sweeps,
    services,
    workers,
)

COUNTED = 10_000  # beyond that, the number of rows is PostgreSQL's estimate
SWEEP_AGAIN = timedelta(hours=1)
FINISHED = ("stopped", "failed", "rolled_back")
_NOW = sa.func.skyctl_now()
_FLAPPING = (EventKind.FLAPPING.value, EventKind.SETTLED.value)


class Kind(NamedTuple):
    """Rows of one kind: those that are `ours` are looked at in the order of two columns, their age and their key, or of
    the key alone where that grows with the age (`is_log`); they go where `over`. `index_name`: that order's."""

    name: str
    table: sa.Table
    age: sa.Column[Any]
    key: sa.Column[Any]
    index_name: str
    kept_for: Callable[[RetentionPolicy], timedelta]
    ours: Sequence[sa.ColumnElement[bool]] = ()
    over: Callable[[RetentionPolicy, sa.ColumnElement[datetime]], Sequence[sa.ColumnElement[bool]]] = lambda *_: ()
    is_log: bool = False

    @property
    def order(self) -> tuple[sa.Column[Any], ...]:
        """The columns by which the rows are looked at."""
        return (self.key,) if self.is_log else (self.age, self.key)


def step(
    connection: sa.Connection, kind: Kind, policy: RetentionPolicy, most: int, *, passes_over: bool = False
) -> tuple[int, bool]:
    """Look at the next `most` rows of a kind and remove those that may go, or none of them; return how many went, and
    whether there is more to look at. What was looked through lately is not looked at again."""
    c = retention_sweeps.c
    sweep = connection.execute(
        sa.select(c.after_at, c.after_key, c.swept_at > _NOW - SWEEP_AGAIN).where(c.name == kind.name)
    ).one_or_none()
    if sweep and sweep.after_key is None and sweep[2]:
        return 0, False
    cutoff = _NOW - kind.kept_for(policy)
    rows = _next(connection, kind, cutoff, sweep, most)
    old = [row.key for row in rows if row.is_old]
    gone = [] if passes_over else _remove(connection, kind, policy, cutoff, old)
    is_over = len(rows) < most or not old
    last = rows[-1] if rows and not is_over else None
    values: dict[str, Any] = {
        "after_at": last.age if last and not kind.is_log else None,
        "after_key": str(last.key) if last else None,
    }
    values |= {"swept_at": _NOW} if is_over else {}
    values |= {"removed_seq": max(gone)} if gone and kind is EVENTS else {}
    noted = insert(retention_sweeps).values(name=kind.name, removed=len(gone), **values)
    values |= {"removed": c.removed + len(gone)}
    if "removed_seq" in values:
        values["removed_seq"] = sa.func.greatest(c.removed_seq, values["removed_seq"])
    connection.execute(noted.on_conflict_do_update(index_elements=["name"], set_=values))
    return len(gone), not is_over


def removed_seq(connection: sa.Connection) -> int:
    """The number of the last event that was removed; 0 where none was."""
    query = sa.select(retention_sweeps.c.removed_seq).where(retention_sweeps.c.name == EVENTS.name)
    return connection.execute(query).scalar_one_or_none() or 0


def kept(connection: sa.Connection, kind: Kind, policy: RetentionPolicy) -> KeptRows:
    """How many rows of a kind there are, and since when."""
    some = sa.select(sa.literal(1)).select_from(kind.table).where(*kind.ours).limit(COUNTED + 1).subquery()
    number = connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()
    about = number > COUNTED
    if about:
        estimate = sa.text("SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = to_regclass(:index)")
        number = max(number, connection.execute(estimate, {"index": kind.index_name}).scalar_one_or_none() or 0)
    first = sa.select(kind.age).where(*kind.ours).order_by(*kind.order).limit(1)
    if kind is EVENTS:
        first = first.where(events.c.seq > removed_seq(connection))
    c = retention_sweeps.c
    swept_at = connection.execute(sa.select(c.swept_at).where(c.name == kind.name)).scalar_one_or_none()
    oldest_at = connection.execute(first).scalar_one_or_none()
    return KeptRows(kind.name, kind.kept_for(policy), number, about, oldest_at, swept_at)


def _next(
    connection: sa.Connection, kind: Kind, cutoff: sa.ColumnElement[datetime], sweep: Any, most: int
) -> Sequence[Any]:
    """The next rows, by the columns of the order: their age and key, and whether they are older than the cutoff."""
    wanted = [*kind.ours, *([] if kind.is_log else [kind.age < cutoff])]
    after = _after(kind, sweep)
    if after is not None:
        wanted.append(after)
    columns = (kind.age.label("age"), kind.key.label("key"), (kind.age < cutoff).label("is_old"))
    return connection.execute(sa.select(*columns).where(*wanted).order_by(*kind.order).limit(most)).all()


def _after(kind: Kind, sweep: Any) -> sa.ColumnElement[bool] | None:
    """What comes after where the step before ended; None, for all, where there was none or it noted no place."""
    if not sweep or sweep.after_key is None:
        return None
    try:
        if kind.is_log:
            return kind.key > int(sweep.after_key)
        key = UUID(sweep.after_key) if isinstance(kind.key.type, sa.UUID) else sweep.after_key
    except ValueError:
        return None
    after = sa.tuple_(sa.literal(sweep.after_at, kind.age.type), sa.literal(key, kind.key.type))
    return sa.tuple_(*kind.order) > after


def _remove(
    connection: sa.Connection,
    kind: Kind,
    policy: RetentionPolicy,
    cutoff: sa.ColumnElement[datetime],
    keys: Sequence[Any],
) -> Sequence[Any]:
    """Remove those of the rows that may go and that nobody else holds; return their keys."""
    if not keys:
        return []
    among = kind.key == sa.any_(sa.literal(list(keys), sa.ARRAY(kind.key.type)))
    free = sa.select(kind.key).where(among, *kind.ours, *kind.over(policy, cutoff))
    gone = list(connection.execute(free.with_for_update(of=kind.table, skip_locked=True)).scalars())
    if kind is ALERTS:  # those that are closed
        told = incidents.c.alert_id == sa.any_(sa.literal(gone, sa.ARRAY(kind.key.type)))
        connection.execute(sa.delete(incidents).where(told))
    connection.execute(sa.delete(kind.table).where(kind.key == sa.any_(sa.literal(gone, sa.ARRAY(kind.key.type)))))
    return gone


def _events_over(*_: object) -> Sequence[sa.ColumnElement[bool]]:
    """Of each worker stays the event of its last change and of its last flapping, which `why` and alerts read, and of
    the removed ones that they were removed, which refuses their tokens. What people are not alerted of yet stays."""
    e, later = events.c, events.alias("later")
    again = sa.or_(
        sa.and_(e.kind == EventKind.STATUS_CHANGED.value, later.c.kind == EventKind.STATUS_CHANGED.value),
        sa.and_(e.kind.in_(_FLAPPING), later.c.kind.in_(_FLAPPING)),
    )
    superseded = sa.exists().where(later.c.worker_id == e.worker_id, later.c.seq > e.seq, again)
    says_how_it_is = e.kind.in_((EventKind.STATUS_CHANGED.value, *_FLAPPING))
    alerted = sa.select(monitor_leases.c.alerted_seq).where(monitor_leases.c.name == "monitor").scalar_subquery()
    return (
        e.kind != EventKind.REMOVED.value,
        e.seq <= alerted,
        sa.or_(sa.not_(says_how_it_is), superseded, sa.not_(sa.exists().where(workers.c.id == e.worker_id))),
    )


def _alerts_over(_: RetentionPolicy, cutoff: sa.ColumnElement[datetime]) -> Sequence[sa.ColumnElement[bool]]:
    """An alert stays while its incident is open, its mass failure is not lifted, or a channel has still to take it."""
    i, d, m = incidents.c, deliveries.c, mass_failures.c
    stands = sa.and_(i.closed_at.is_(None), sa.exists().where(workers.c.id == i.worker_id))
    is_open = sa.exists().where(i.alert_id == alerts.c.id, sa.or_(stands, i.closed_at >= cutoff))
    waits = sa.exists().where(d.alert_id == alerts.c.id, d.delivered_at.is_(None), d.given_up_at.is_(None))
    number = alerts.c.metadata["massFailureId"].astext
    lasts = sa.exists().where(sa.cast(m.id, sa.Text) == number, m.lifted_at.is_(None))
    return sa.not_(is_open), sa.not_(waits), sa.not_(sa.and_(alerts.c.kind == "mass_failure", lasts))


def _migrations_over(*_: object) -> Sequence[sa.ColumnElement[bool]]:
    """A migration stays while its old container may still run somewhere, nobody was told of it yet, or it says why a
    service is not moved again."""
    m, w = migrations.c, workers.c
    ghost = sa.and_(
        m.state == "completed", m.source_stopped_at.is_(None), sa.exists().where(w.id == m.source_worker_id)
    )
    counts = sa.exists().where(w.id == m.source_worker_id, w.drain_requested_at <= m.created_at)
    tried = sa.exists().where(services.c.current_deployment_id == m.source_deployment_id)
    return m.summed_up_at.is_not(None), sa.not_(ghost), sa.not_(counts), sa.not_(tried)


def _deployments_over(policy: RetentionPolicy, _: object) -> Sequence[sa.ColumnElement[bool]]:
    """A deployment stays while it is its service's current one or among its newest, or a migration tells of it."""
    d, newer = deployments.c, deployments.alias("newer")
    later = sa.select(newer.c.id).where(
        newer.c.service_id == d.service_id, sa.tuple_(newer.c.created_at, newer.c.id) > sa.tuple_(d.created_at, d.id)
    )
    newest = later.correlate(deployments).limit(policy.deployments).subquery()
    follow = sa.select(sa.func.count()).select_from(newest).scalar_subquery()
    return (
        follow >= policy.deployments,
        sa.not_(sa.exists().where(services.c.current_deployment_id == d.id)),
        sa.not_(sa.exists().where(migrations.c.source_deployment_id == d.id)),
        sa.not_(sa.exists().where(migrations.c.target_deployment_id == d.id)),
    )


EVENTS = Kind(
    "events",
    events,
    events.c.at,
    events.c.seq,
    "worker_events_pkey",
    lambda policy: policy.events,
    over=_events_over,
    is_log=True,
)
ALERTS = Kind(
    "alerts",
    alerts,
    alerts.c.at,
    alerts.c.id,
    "worker_alerts_pkey",
    lambda policy: policy.history,
    over=_alerts_over,
    is_log=True,
)
_TOLD: sa.ColumnElement[bool] = sa.func.skyctl_told(notifications.c.metadata, type_=sa.Boolean())
_LOGGED: sa.ColumnElement[bool] = sa.func.skyctl_logged(
    activity_logs.c.event_type, activity_logs.c.metadata, type_=sa.Boolean()
)
_OVER = (deployments.c.by_skyctl, deployments.c.status.in_(FINISHED), deployments.c.untold_since.is_(None))
# Migrations before the deployments that they tell of.
KINDS = (
    EVENTS,
    ALERTS,
    Kind(
        "notifications",
        notifications,
        notifications.c.created_at,
        notifications.c.id,
        "notifications_skyctl_idx",
        lambda policy: policy.history,
        ours=(_TOLD,),
    ),
    Kind(
        "activity log",
        activity_logs,
        activity_logs.c.created_at,
        activity_logs.c.id,
        "activity_logs_skyctl_idx",
        lambda policy: policy.activity,
        ours=(_LOGGED,),
    ),
    Kind(
        "migrations",
        migrations,
        migrations.c.finished_at,
        migrations.c.id,
        "container_migrations_over_idx",
        lambda policy: policy.history,
        ours=(migrations.c.finished_at.is_not(None),),
        over=_migrations_over,
    ),
    Kind(
        "deployments",
        deployments,
        deployments.c.updated_at,
        deployments.c.id,
        "container_deployments_over_idx",
        lambda policy: policy.history,
        ours=_OVER,
        over=_deployments_over,
    ),
    Kind(
        "install links",
        install_links,
        install_links.c.expires_at,
        install_links.c.secret_hash,
        "install_links_expires_idx",
        lambda policy: policy.events,
    ),
)
