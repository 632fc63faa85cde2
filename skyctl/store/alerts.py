"""Alerts: stored, told to the people in the database, and on their way to the channels."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from skyctl.domain.cluster import Alert, Delivery, Incident, Worker
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable_json
from skyctl.rules.alerts import SAID
from skyctl.rules.engine_alerts import BACK, LOST
from skyctl.rules.severity import OF_KIND, Severity, severity
from skyctl.store.rows import COLUMNS, KNOWN_STATUS, among, array_of, read
from skyctl.store.tables import (
    activity_logs,
    alerts,
    deliveries,
    incidents,
    notifications,
    organization_members,
    users,
    workers,
)

NEWS_CHANNEL = "worker_alerts"
# PostgreSQL refuses a notification of 8,000 bytes or more.
LONGEST_NOTIFICATION = 7999
_NOW = sa.func.skyctl_now()


def insert_alert(connection: sa.Connection, alert: Alert, term: int | None) -> int:
    """Store an alert; its number."""
    values = {
        "kind": alert.kind,
        "worker_id": alert.worker_id,
        "title": alert.title,
        "message": alert.message,
        "metadata": dict(alert.metadata),
        "term": term,
    }
    number: int = connection.execute(sa.insert(alerts).values(values).returning(alerts.c.id)).scalar_one()
    return number


def notify(connection: sa.Connection, alert_id: int, alert: Alert) -> None:
    """Notify everybody whom the alert is for, add rows to the activity log, and NOTIFY whoever listens."""
    metadata = {"alertId": alert_id, "alertType": alert.kind, **alert.metadata}
    if alert.worker_id:
        metadata["workerId"] = str(alert.worker_id)
    everyone = sa.select(
        users.c.id, sa.literal(alert.kind), sa.literal(alert.message), sa.cast(metadata, notifications.c.metadata.type)
    )
    columns = ["user_id", "type", "message", "metadata"]
    connection.execute(sa.insert(notifications).from_select(columns, everyone.where(_is_for(alert))))
    _log(connection, alert, metadata)
    connection.execute(sa.select(sa.func.pg_notify(NEWS_CHANNEL, notification(alert_id, alert))))


def _log(connection: sa.Connection, alert: Alert, metadata: dict[str, Any]) -> None:
    """Add the alert to the activity log: once as the system's, and once, to be read, as of each whom it is for, since
    the panel shows a user what is his."""
    c = activity_logs.c
    same = {
        "event_type": f"alert.{alert.kind}",
        "organization_id": alert.organization_id,
        "entity_id": str(alert.worker_id) if alert.worker_id else None,
        "message": alert.message,
        "status": severity(alert.kind),
        "metadata": metadata,
        "is_read": False,
    }
    values = [sa.literal(value, c[name].type) for name, value in same.items()]
    of_system = sa.select(sa.null().cast(c.user_id.type), sa.literal("system"), _NOW, *values)
    entity = "worker" if alert.worker_id else "system"
    of_each = sa.select(users.c.id, sa.literal(entity), _NOW, *values).where(_is_for(alert))
    rows = sa.union_all(of_system, of_each)
    connection.execute(sa.insert(activity_logs).from_select(["user_id", "entity_type", "created_at", *same], rows))


def _is_for(alert: Alert) -> sa.ColumnElement[bool]:
    if alert.organization_id is None:
        return users.c.role == "admin"
    theirs = organization_members.c.organization_id == alert.organization_id
    return users.c.id.in_(sa.select(organization_members.c.user_id).where(theirs))


def notification(alert_id: int, alert: Alert) -> str:
    """The JSON `{workerId, alertType, metadata}`; where it would be too long, metadata holds no more than the alert's
    number."""
    document: dict[str, Any] = {
        "workerId": str(alert.worker_id) if alert.worker_id else None,
        "alertType": alert.kind,
        "metadata": {"alertId": alert_id, "message": alert.message, **alert.metadata},
    }
    whole = printable_json(json.dumps(document, ensure_ascii=False))
    if len(whole.encode()) <= LONGEST_NOTIFICATION:
        return whole
    return json.dumps({**document, "metadata": {"alertId": alert_id, "truncated": True}})


def incidents_of(connection: sa.Connection, worker_ids: Iterable[UUID]) -> dict[UUID, Incident]:
    """The incidents of these workers, as people were last alerted to them."""
    rows = connection.execute(sa.select(incidents).where(among(incidents.c.worker_id, worker_ids)))
    return {row.worker_id: Incident(row.alert_id, row.closed_at is None, row.exhaustion_alerted_at) for row in rows}


def open_incidents(connection: sa.Connection, alert_id: int, worker_ids: Sequence[UUID], *, exhausted: bool) -> None:
    """Open the incidents of these workers with the alert, or continue them."""
    alerted_at = _NOW if exhausted else sa.null()
    ids = sa.select(sa.func.unnest(array_of(worker_ids)), sa.literal(alert_id), alerted_at)
    opened = insert(incidents).from_select(["worker_id", "alert_id", "exhaustion_alerted_at"], ids)
    going_on = sa.case((incidents.c.closed_at.is_(None), incidents.c.alert_id), else_=opened.excluded.alert_id)
    last_told = sa.func.coalesce(opened.excluded.exhaustion_alerted_at, incidents.c.exhaustion_alerted_at)
    changed = {"alert_id": going_on, "closed_at": None, "exhaustion_alerted_at": last_told}
    connection.execute(opened.on_conflict_do_update(index_elements=["worker_id"], set_=changed))


def close_incidents(connection: sa.Connection, worker_ids: Iterable[UUID]) -> None:
    """Close the incidents of these workers."""
    closed = sa.update(incidents).where(among(incidents.c.worker_id, worker_ids), incidents.c.closed_at.is_(None))
    connection.execute(closed.values(closed_at=_NOW))


def assign_incidents(connection: sa.Connection, mass_failure_id: int | None, worker_ids: Sequence[UUID]) -> None:
    """Open the incidents of workers without an alert of their own with the alert of their mass failure; without a mass
    failure, close them."""
    if mass_failure_id is None:
        close_incidents(connection, worker_ids)
        return
    query = sa.select(alerts.c.id).where(
        alerts.c.kind == "mass_failure", alerts.c.metadata["massFailureId"].astext == str(mass_failure_id)
    )
    number = connection.execute(query.order_by(alerts.c.id).limit(1)).scalar_one_or_none()
    if number is not None:
        open_incidents(connection, number, worker_ids, exhausted=False)


def still_exhausted(connection: sa.Connection, cooldown: timedelta) -> list[Worker]:
    """Workers that are unhealthy again, of which people were not told because they had been lately, and no longer
    have."""
    columns = incidents.c
    due = sa.and_(columns.closed_at.is_not(None), columns.exhaustion_alerted_at <= _NOW - cooldown)
    query = sa.select(*COLUMNS).join_from(workers, incidents, columns.worker_id == workers.c.id)
    exhausted = query.where(
        due,
        KNOWN_STATUS == WorkerStatus.UNHEALTHY,
        workers.c.engine_failed_at.is_(None),
        workers.c.flapping_since.is_(None),
    )
    return [read(row) for row in connection.execute(exhausted.order_by(workers.c.name, workers.c.id))]


def send_to(connection: sa.Connection, alert_id: int, channels: Iterable[str], not_before: datetime | None) -> None:
    """Queue the alert for delivery by each of the channels: at once, or not before then."""
    due = {} if not_before is None else {"next_attempt_at": not_before}
    for channel in channels:
        connection.execute(sa.insert(deliveries).values(alert_id=alert_id, channel=channel, **due))


def claim(connection: sa.Connection, channel: str, hold: timedelta) -> list[Delivery]:
    """Take the deliveries by this channel that are to go next, as one message: of the incidents whose newest alert is
    the gravest the one with the newest; its newest alert first. Nobody else gets them for as long as `hold`.

    With what is due goes what was tried before and waits for its next attempt, lest it arrive after what is newer.
    """
    lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"alerts by {channel}", 0))
    connection.execute(sa.select(lock))  # two who choose at once would choose the same
    values = {"channel": channel, "of_health": list(SAID), "of_engine": [LOST, BACK], "grave": _GRAVE, "calm": _CALM}
    chosen = connection.execute(_NEXT, values).scalar_one_or_none() or []
    taken = sa.update(deliveries).where(_c.channel == channel, _c.alert_id.in_(chosen), _WAITS)
    counts = sa.case((_c.next_attempt_at > _NOW, 0), else_=1)  # who only goes along is not tried in its own right
    taken = taken.values(attempts=_c.attempts + counts, next_attempt_at=_NOW + hold).returning(_c.alert_id, _c.attempts)
    attempts = {row.alert_id: row.attempts for row in connection.execute(taken)}
    rows = connection.execute(sa.select(alerts).where(alerts.c.id.in_(attempts)).order_by(alerts.c.id.desc()))
    return [Delivery(_alert(row), attempts[row.id]) for row in rows]


_c = deliveries.c
_WAITS = sa.and_(_c.delivered_at.is_(None), _c.given_up_at.is_(None))
_GRAVE = [kind for kind, severity in OF_KIND.items() if severity is Severity.ERROR]
_CALM = [kind for kind, severity in OF_KIND.items() if severity in (Severity.INFO, Severity.SUCCESS)]
# see ADR 0081
_NEXT = sa.text("""
    SELECT array_agg(alert_id) FROM (
        SELECT d.alert_id, a.kind, d.next_attempt_at <= skyctl_now() AS is_due,
               CASE WHEN a.kind = ANY(:of_engine) THEN 'engine'
                    WHEN a.worker_id IS NULL THEN coalesce('mass ' || (a.metadata ->> 'massFailureId'), 'one ' || a.id)
                    WHEN a.kind = ANY(:of_health) THEN 'health ' || a.worker_id
                    ELSE a.kind || ' ' || a.worker_id END AS incident
        FROM alert_deliveries d JOIN worker_alerts a ON a.id = d.alert_id
        WHERE d.channel = :channel AND d.delivered_at IS NULL AND d.given_up_at IS NULL
          AND (d.next_attempt_at <= skyctl_now() OR d.error IS NOT NULL)
    ) AS waiting
    GROUP BY incident HAVING bool_or(is_due)
    ORDER BY (array_agg(kind ORDER BY alert_id DESC))[1] = ANY(:grave) DESC,
             (array_agg(kind ORDER BY alert_id DESC))[1] = ANY(:calm), max(alert_id) DESC
    LIMIT 1
""")


def note_delivered(connection: sa.Connection, alert_ids: Iterable[int], channel: str) -> None:
    """Note that the channel took the alerts."""
    _note(connection, alert_ids, channel, delivered_at=_NOW, error=None)


def note_failed(connection: sa.Connection, alert_id: int, channel: str, error: str, pause: timedelta | None) -> None:
    """Note that the channel did not take the alert, and when it is tried again, which is after the end of a silence;
    without a pause it is given up."""
    if pause is None:
        _note(connection, [alert_id], channel, error=error, given_up_at=_NOW)
        return
    about = sa.select(alerts.c.worker_id).where(alerts.c.id == alert_id, alerts.c.kind.in_(list(SAID)))
    silenced_until = sa.select(workers.c.alerts_silenced_until).where(workers.c.id == about.scalar_subquery())
    again_at = sa.func.greatest(_NOW + pause, silenced_until.scalar_subquery())
    _note(connection, [alert_id], channel, error=error, next_attempt_at=again_at)


def next_due_at(connection: sa.Connection, channel: str) -> datetime | None:
    """The time at which the next delivery by this channel is due; None where none waits."""
    c = deliveries.c
    waiting = sa.select(sa.func.min(c.next_attempt_at))
    due: datetime | None = connection.execute(
        waiting.where(c.channel == channel, c.delivered_at.is_(None), c.given_up_at.is_(None))
    ).scalar_one()
    return due


class Trouble(NamedTuple):
    """A channel that does not take alerts: how many wait although they were tried, how many were given up since one
    last arrived, and the last error."""

    channel: str
    failing: int
    given_up: int
    error: str


def troubles(connection: sa.Connection) -> list[Trouble]:
    """The channels that do not take alerts, by name. What was given up before another one arrived is past."""
    return [Trouble(*row) for row in connection.execute(_TROUBLES)]


_TROUBLES = sa.text("""
    WITH failing AS (
        SELECT channel, given_up_at, error, alert_id FROM alert_deliveries
        WHERE delivered_at IS NULL AND error IS NOT NULL
    ), last AS (
        SELECT channel, (SELECT max(delivered_at) FROM alert_deliveries d WHERE d.channel = c.channel) AS at
        FROM (SELECT DISTINCT channel FROM failing) AS c
    ), bad AS (
        SELECT failing.* FROM failing JOIN last USING (channel)
        WHERE given_up_at IS NULL OR last.at IS NULL OR given_up_at > last.at
    )
    SELECT channel, count(*) FILTER (WHERE given_up_at IS NULL), count(*) FILTER (WHERE given_up_at IS NOT NULL),
           (array_agg(error ORDER BY alert_id DESC))[1]
    FROM bad GROUP BY channel ORDER BY channel
""")


def latest(
    connection: sa.Connection, limit: int, after: int | None, before: int | None
) -> list[tuple[Alert, int, int, int]]:
    """The last alerts before a number, if there is one, or the first after one, in order, each with its deliveries:
    made, waiting, given up."""
    c = deliveries.c
    made, waiting = c.delivered_at.is_not(None), sa.and_(c.delivered_at.is_(None), c.given_up_at.is_(None))
    counts = [sa.func.count(c.channel).filter(condition) for condition in (made, waiting, c.given_up_at.is_not(None))]
    conditions = [alerts.c.id > after] if after is not None else []
    conditions += [alerts.c.id < before] if before is not None else []
    order = alerts.c.id.desc() if after is None else alerts.c.id
    wanted = sa.select(alerts.c.id).where(*conditions).order_by(order).limit(limit)
    query = sa.select(alerts, *counts).outerjoin(deliveries, c.alert_id == alerts.c.id).where(alerts.c.id.in_(wanted))
    rows = connection.execute(query.group_by(alerts.c.id).order_by(alerts.c.id.desc()))
    return [(_alert(row), *row[-3:]) for row in rows][::-1]


def since(connection: sa.Connection, alert_id: int, limit: int) -> list[Alert]:
    """The alerts after a number, in order."""
    rows = connection.execute(sa.select(alerts).where(alerts.c.id > alert_id).order_by(alerts.c.id).limit(limit))
    return [_alert(row) for row in rows]


def last_id(connection: sa.Connection) -> int:
    """The number of the last alert; 0 where there is none."""
    last: int = connection.execute(sa.select(sa.func.coalesce(sa.func.max(alerts.c.id), 0))).scalar_one()
    return last


def _note(connection: sa.Connection, alert_ids: Iterable[int], channel: str, **values: Any) -> None:
    noted = sa.update(deliveries).where(deliveries.c.alert_id.in_(alert_ids), deliveries.c.channel == channel)
    connection.execute(noted.values(values))


def _alert(row: Any) -> Alert:
    return Alert(row.kind, row.worker_id, row.title, row.message, row.metadata, row.id, row.at)
