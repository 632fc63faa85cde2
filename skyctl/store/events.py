"""The log of events."""

from uuid import UUID

import sqlalchemy as sa

from skyctl.model import Event
from skyctl.store.tables import events


def append(connection: sa.Connection, event: Event) -> None:
    """Write an event in the transaction of the change that it tells of."""
    connection.execute(
        sa.insert(events).values(
            kind=event.kind, worker_id=event.worker_id, worker_name=event.worker_name, actor=event.actor,
            from_status=event.from_status, to_status=event.to_status, reason=event.reason, details=dict(event.details),
        )
    )  # fmt: skip


def was_removed(connection: sa.Connection, worker_id: UUID) -> bool:
    """Whether a worker of this id was ever removed."""
    removed = sa.exists().where(events.c.worker_id == worker_id, events.c.kind == "removed")
    return bool(connection.execute(sa.select(removed)).scalar_one())


def set_actor(connection: sa.Connection, actor: str) -> None:
    """Name who acts, for events that the database writes by itself in this transaction."""
    connection.execute(sa.select(sa.func.set_config("skyctl.actor", actor, True)))
