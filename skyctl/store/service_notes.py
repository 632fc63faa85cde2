"""What is noted of services by what their containers do: that none runs, that they keep ending."""

from datetime import datetime

import sqlalchemy as sa

from skyctl.store.services import AppliedDeployment
from skyctl.store.tables import services

_NOW = sa.func.skyctl_now()


def note_down(
    connection: sa.Connection, seen: AppliedDeployment, *, since: datetime, reason: str | None = None
) -> bool:
    """Note that none of a service's containers has run since a time, and was just seen not to; with the reason, once
    that has lasted. False where its row is another one by now than was seen."""
    down = {"down_since": since, "down_seen_at": _NOW, "down_reason": reason}
    return connection.execute(sa.update(services).where(*_as_seen(seen)).values(down)).rowcount > 0


def note_up(connection: sa.Connection, seen: AppliedDeployment) -> bool:
    """Note that one of a service's containers runs, or that none is to. False where its row is another one by now than
    was seen."""
    up = sa.update(services).where(*_as_seen(seen))
    return connection.execute(up.values(down_since=None, down_seen_at=None, down_reason=None)).rowcount > 0


def note_ending(
    connection: sa.Connection, seen: AppliedDeployment, task: str | None, at: datetime | None, reason: str | None
) -> bool:
    """Note the newest task of a service whose containers end again and again, when that was first seen, and why people
    are told so; nothing where they do not. False where its row is another one by now than was seen."""
    c, ending = services.c, {"ending_task": task, "ending_seen_at": at, "ending_reason": reason}
    same = (c.current_deployment_id == seen.deployment_id, c.ending_task.is_not_distinct_from(seen.ending_task))
    noted = sa.update(services).where(c.id == seen.service_id, *same).values(ending)
    return connection.execute(noted).rowcount > 0


def _as_seen(seen: AppliedDeployment) -> tuple[sa.ColumnElement[bool], ...]:
    c = services.c
    return (
        c.id == seen.service_id,
        c.current_deployment_id == seen.deployment_id,
        c.down_since.is_not_distinct_from(seen.down_since),
    )
