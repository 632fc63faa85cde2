"""The log of events, and the operations' rows in the activity log."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from skyctl.documents import records
from skyctl.domain.cluster import Actor, Event
from skyctl.domain.event_filter import ALL, EventFilter
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
    rows = connection.execute(_APPEND, {"events": records.dump(new)}).all()
    return [_numbered(event, seq, at) for event, (seq, at) in zip(new, rows, strict=True)]


# One document, since arrays of thousands of values take longer to write down than to insert; numbered in their order.
_APPEND = sa.text("""
    INSERT INTO worker_events (kind, worker_id, worker_name, actor, from_status, to_status, reason, details, term)
    SELECT e.kind, e.worker_id, e.worker_name, e.actor, e.from_status, e.to_status, e.reason, e.details, e.term
    FROM ROWS FROM (json_to_recordset(CAST(:events AS json))
                    AS (kind text, worker_id uuid, worker_name text, actor text, from_status text, to_status text,
                        reason text, details jsonb, term bigint))
         WITH ORDINALITY
              AS e (kind, worker_id, worker_name, actor, from_status, to_status, reason, details, term, place)
    ORDER BY e.place
    RETURNING seq, at
""")


def _numbered(event: Event, seq: int, at: datetime) -> Event:
    """The same event with its place in the log; `replace` takes three times as long."""
    return Event(
        event.kind,
        event.worker_id,
        event.worker_name,
        event.actor,
        event.from_status,
        event.to_status,
        event.reason,
        event.details,
        event.term,
        seq,
        at,
    )


def record(connection: sa.Connection, event: Event, actor: Actor) -> None:
    """Write what a person did: the event, and the row in the activity log that says who, from where and what."""
    record_all(connection, [event], actor)


def record_all(connection: sa.Connection, new: Sequence[Event], actor: Actor) -> None:
    """Write what a person did to many workers, as `record` does, in a few statements."""
    append(connection, *new)
    log_activity(connection, new, actor)


def log_activity(connection: sa.Connection, new: Sequence[Event], actor: Actor) -> None:
    """Write only the rows in the activity log. What a person did is no news to him: it is read."""
    if new:
        rows, now = [_activity(event, actor) for event in new], sa.func.skyctl_now()
        connection.execute(sa.insert(activity_logs).values(created_at=now, is_read=True, read_at=now), rows)


def since(connection: sa.Connection, seq: int, limit: int | None, wanted: EventFilter = ALL) -> list[Event]:
    """Return the events after a number, in order."""
    query = sa.select(events).where(events.c.seq > seq, *_conditions(wanted))
    return [_event(row) for row in connection.execute(query.order_by(events.c.seq).limit(limit)).all()]


def latest(connection: sa.Connection, limit: int | None, wanted: EventFilter = ALL) -> list[Event]:
    """Return the last events, in order."""
    query = sa.select(events).where(*_conditions(wanted)).order_by(events.c.seq.desc()).limit(limit)
    return [_event(row) for row in connection.execute(query)][::-1]


def _conditions(wanted: EventFilter) -> list[sa.ColumnElement[bool]]:
    c = events.c
    conditions = [among(c.worker_id, wanted.worker_ids)] if wanted.worker_ids else []
    conditions += [c.kind.in_(wanted.kinds)] if wanted.kinds else []
    conditions += [c.at >= wanted.begins_at] if wanted.begins_at else []
    conditions += [c.at < wanted.ends_at] if wanted.ends_at else []
    return conditions + ([c.seq < wanted.before] if wanted.before is not None else [])


def workers_called(connection: sa.Connection, reference: str) -> list[UUID]:
    """Return the workers that had this name or id in any event, also those that were removed."""
    known = events.c.worker_id.is_not(None)
    called = sa.or_(events.c.worker_name == reference, sa.cast(events.c.worker_id, sa.Text) == reference.lower())
    return list(connection.execute(sa.select(events.c.worker_id).distinct().where(known, called)).scalars())


def of_migration(connection: sa.Connection, migration_id: UUID) -> list[Event]:
    """Return the events of a migration, in order."""
    wanted = (events.c.details.has_key("migrationId"), events.c.details["migrationId"].astext == str(migration_id))
    return [_event(row) for row in connection.execute(sa.select(events).where(*wanted).order_by(events.c.seq))]


def transitions(
    connection: sa.Connection,
    worker_ids: Iterable[UUID],
    between: Sequence[WorkerStatus],
    window: timedelta,
    least: int,
) -> dict[UUID, int]:
    """Return how often workers changed between these statuses within the window that ends now, without the changes that
    were on purpose; of those that did so often at least."""
    counted = sa.select(events.c.worker_id, sa.func.count()).where(
        among(events.c.worker_id, worker_ids),
        events.c.kind == EventKind.STATUS_CHANGED,
        events.c.from_status.in_(between),
        events.c.to_status.in_(between),
        events.c.from_status != events.c.to_status,  # unhealthy for another reason
        events.c.at.between(sa.func.skyctl_now() - window, sa.func.skyctl_now()),  # none from before a clock's step
        events.c.details["onPurpose"].is_(None),
    )
    return {
        row[0]: row[1]
        for row in connection.execute(counted.group_by(events.c.worker_id).having(sa.func.count() >= least))
    }


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
