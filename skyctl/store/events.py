"""The log of events, and the operations' rows in the activity log."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.cluster import Actor, Event
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable
from skyctl.store.rows import among
from skyctl.store.tables import activity_logs, events

NEWS_CHANNEL = "skyctl_events"


def lock(connection: sa.Connection) -> None:
    """Keep others from appending until this transaction ends, so that events become visible in the order of their
    numbers.

    Call it before the first row is locked, except that of the monitor's lease: then no two transactions wait for each
    other.
    """
    connection.execute(sa.select(sa.func.skyctl_lock_events()))


def append(connection: sa.Connection, *new: Event) -> list[Event]:
    """Write events in the transaction of the change that they report; return them with their numbers. See `lock`."""
    if not new:
        return []
    columns = [{name: value for name, value in asdict(event).items() if name not in ("seq", "at")} for event in new]
    rows = connection.execute(sa.insert(events).returning(events, sort_by_parameter_order=True), columns)
    return [_event(row) for row in rows]


def record(connection: sa.Connection, event: Event, actor: Actor) -> None:
    """Write what a person did: the event, and the row in the activity log that says who, from where and what."""
    record_all(connection, [event], actor)


def record_all(connection: sa.Connection, new: Sequence[Event], actor: Actor) -> None:
    """Write what a person did to many workers, as `record` does, in a few statements."""
    append(connection, *new)
    log_activity(connection, new, actor)


def log_activity(connection: sa.Connection, new: Sequence[Event], actor: Actor) -> None:
    """Write only the rows in the activity log."""
    if new:
        rows = [_activity(event, actor) for event in new]
        connection.execute(sa.insert(activity_logs).values(created_at=sa.func.skyctl_now()), rows)


def since(connection: sa.Connection, seq: int, limit: int) -> list[Event]:
    """Return the events after a number, in order."""
    rows = connection.execute(sa.select(events).where(events.c.seq > seq).order_by(events.c.seq).limit(limit))
    return [_event(row) for row in rows]


def latest(
    connection: sa.Connection, limit: int, worker_id: UUID | None = None, kinds: Sequence[str] = ()
) -> list[Event]:
    """Return the last events, in order; only those of one worker, or of some kinds, where these are given."""
    wanted: list[sa.ColumnElement[bool]] = [] if worker_id is None else [events.c.worker_id == worker_id]
    wanted += [events.c.kind.in_(kinds)] if kinds else []
    rows = connection.execute(sa.select(events).where(*wanted).order_by(events.c.seq.desc()).limit(limit))
    return [_event(row) for row in rows][::-1]


def of_migration(connection: sa.Connection, migration_id: UUID) -> list[Event]:
    """Return the events of a migration, in order."""
    wanted = (events.c.details.has_key("migrationId"), events.c.details["migrationId"].astext == str(migration_id))
    return [_event(row) for row in connection.execute(sa.select(events).where(*wanted).order_by(events.c.seq))]


def transitions(
    connection: sa.Connection, worker_ids: Iterable[UUID], between: Sequence[WorkerStatus], window: timedelta
) -> dict[UUID, int]:
    """Return how often each worker changed between these statuses within the window that ends now, without the changes
    that were on purpose."""
    counted = sa.select(events.c.worker_id, sa.func.count()).where(
        among(events.c.worker_id, worker_ids),
        events.c.kind == EventKind.STATUS_CHANGED,
        events.c.from_status.in_(between),
        events.c.to_status.in_(between),
        events.c.from_status != events.c.to_status,  # unhealthy for another reason
        events.c.at.between(sa.func.skyctl_now() - window, sa.func.skyctl_now()),  # none from before a clock's step
        events.c.details["onPurpose"].is_(None),
    )
    return {row[0]: row[1] for row in connection.execute(counted.group_by(events.c.worker_id))}


def was_removed(connection: sa.Connection, worker_id: UUID) -> bool:
    """Tell whether a worker of this id was ever removed."""
    removed = sa.exists().where(events.c.worker_id == worker_id, events.c.kind == EventKind.REMOVED)
    return bool(connection.execute(sa.select(removed)).scalar_one())


def set_actor(connection: sa.Connection, actor: Actor) -> None:
    """Name who acts, for the events that the database itself writes in this transaction."""
    connection.execute(sa.select(sa.func.set_config("skyctl.actor", actor.name, True)))


def _activity(event: Event, actor: Actor) -> dict[str, Any]:
    """Return a row of the activity log. One without a user is only the system's to the panel."""
    message = ": ".join(part for part in (event.kind.replace("_", " "), event.worker_name, event.reason) if part)
    return {
        "user_id": actor.user_id,
        "event_type": f"worker.{event.kind}",
        "message": printable(message),
        "status": "info",
        "entity_type": "worker" if actor.user_id else "system",
        "entity_id": str(event.worker_id) if event.worker_id else None,
        "ip_address": actor.ip_address,
        "user_agent": actor.user_agent,
        "metadata": {"actor": actor.name, **event.details},
    }


def _event(row: Any) -> Event:
    return Event(
        kind=row.kind,
        worker_id=row.worker_id,
        worker_name=row.worker_name,
        actor=row.actor,
        from_status=WorkerStatus(row.from_status) if row.from_status else None,
        to_status=WorkerStatus(row.to_status) if row.to_status else None,
        reason=row.reason or "",
        details=row.details,
        term=row.term,
        seq=row.seq,
        at=row.at,
    )
