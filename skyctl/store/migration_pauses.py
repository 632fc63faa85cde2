"""Pauses in the database: times in which no migration begins because somebody said so."""

from datetime import timedelta

import sqlalchemy as sa

from skyctl.domain.workloads import Pause
from skyctl.store.tables import pauses

_NOW = sa.func.skyctl_now()


def current(connection: sa.Connection) -> Pause | None:
    """The pause that is on, if any."""
    c = pauses.c
    on = (c.ended_at.is_(None), sa.or_(c.until_at.is_(None), c.until_at > _NOW))
    query = sa.select(c.paused_at, c.paused_by, c.until_at, c.reason).where(*on).order_by(c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return Pause(*row) if row else None


def begin(connection: sa.Connection, by: str, length: timedelta | None, reason: str | None) -> None:
    """Pause migrations, so that none begins; a pause that is on ends, and this one takes its place."""
    end(connection, by)
    values = {"paused_by": by, "until_at": None if length is None else _NOW + length, "reason": reason}
    connection.execute(sa.insert(pauses).values(values))


def end(connection: sa.Connection, by: str) -> bool:
    """End the pause, so that migrations begin again; return whether one was on."""
    on = sa.update(pauses).where(pauses.c.ended_at.is_(None))
    return connection.execute(on.values(ended_at=_NOW, ended_by=by)).rowcount > 0


def seconds_left(connection: sa.Connection) -> float | None:
    """In how many seconds the pause that is on ends; None where none is, or nobody said when."""
    ends = sa.func.min(pauses.c.until_at) - _NOW
    on = (pauses.c.ended_at.is_(None), pauses.c.until_at > _NOW)
    seconds = connection.execute(sa.select(sa.func.extract("epoch", ends)).where(*on)).scalar_one()
    return None if seconds is None else float(seconds)
