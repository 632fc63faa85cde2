"""What callers of the API ask of the monitor, and what came of it."""

from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.monitor_requests import MonitorRequest
from skyctl.store.tables import monitor_requests

ASKED, ANSWERED = "skyctl_asked", "skyctl_answered"
"""The channels on which monitors, and those who wait, are woken."""

_c = monitor_requests.c


def ask(connection: sa.Connection, request: MonitorRequest) -> None:
    """Ask the monitors for something, and wake them when this transaction commits."""
    values = {"id": request.id, "route": request.route, "request": request.text}
    connection.execute(sa.insert(monitor_requests).values(**values))
    connection.execute(sa.select(sa.func.pg_notify(ASKED, "")))


def take(connection: sa.Connection, within: timedelta) -> MonitorRequest | None:
    """Take the oldest request that nobody has taken, and that was made within that time: who made an older one waits no
    more, and was not told that it would be done. None where there is none."""
    is_fresh = _c.asked_at > sa.func.skyctl_now() - within
    free = sa.select(_c.id).where(_c.taken_at.is_(None), is_fresh).order_by(_c.asked_at, _c.id).limit(1)
    statement = sa.update(monitor_requests).where(_c.id == free.with_for_update(skip_locked=True).scalar_subquery())
    taken = statement.values(taken_at=sa.func.skyctl_now()).returning(_c.id, _c.route, _c.request)
    row = connection.execute(taken).one_or_none()
    return MonitorRequest(*row) if row else None


def answer(connection: sa.Connection, request_id: UUID, outcome: str) -> None:
    """Say what came of a request, and wake those who wait when this transaction commits."""
    connection.execute(sa.update(monitor_requests).where(_c.id == request_id).values(outcome=outcome))
    connection.execute(sa.select(sa.func.pg_notify(ANSWERED, str(request_id))))


def collect(connection: sa.Connection, request_id: UUID) -> str | None:
    """Return what came of a request, which is forgotten then; None as long as nothing has."""
    statement = sa.delete(monitor_requests).where(_c.id == request_id, _c.outcome.is_not(None))
    outcome: str | None = connection.execute(statement.returning(_c.outcome)).scalar_one_or_none()
    return outcome


def forget(connection: sa.Connection, age: timedelta) -> None:
    """Forget the requests that are older than that, whatever became of them."""
    connection.execute(sa.delete(monitor_requests).where(_c.asked_at < sa.func.skyctl_now() - age))


def are_busy(connection: sa.Connection) -> bool:
    """Tell whether a request is being worked on."""
    return connection.execute(sa.select(sa.exists().where(_c.taken_at.is_not(None), _c.outcome.is_(None)))).scalar_one()


def withdraw(connection: sa.Connection, request_id: UUID) -> bool:
    """Forget a request that nobody has taken; tell whether it was so."""
    statement = sa.delete(monitor_requests).where(_c.id == request_id, _c.taken_at.is_(None))
    return connection.execute(statement.returning(_c.id)).one_or_none() is not None
