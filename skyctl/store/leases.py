"""The lease by which one monitor leads, and what that monitor notes there about its work."""

from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from skyctl.domain.cluster import Lease
from skyctl.domain.errors import LostLead
from skyctl.store.tables import monitor_leases

_NAME = "monitor"
_TAKE = sa.text("""
    INSERT INTO monitor_leases AS l (name, holder, expires_at, alerted_seq)
    VALUES (:name, :holder, skyctl_now() + :ttl, (SELECT coalesce(max(seq), 0) FROM worker_events))
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, expires_at = excluded.expires_at, term = l.term + 1,
        alerted_seq = coalesce(l.alerted_seq, excluded.alerted_seq)
    WHERE l.expires_at <= skyctl_now() OR l.holder = :yielding
    RETURNING term
""")


def holder(connection: sa.Connection) -> str | None:
    """Return who holds the lease; None where it is free."""
    held = sa.select(monitor_leases.c.holder).where(
        monitor_leases.c.name == _NAME, monitor_leases.c.expires_at > sa.func.skyctl_now()
    )
    return connection.execute(held).scalar_one_or_none()


class Lead(NamedTuple):
    """The last leader, its term, whether it still leads, and the time at which a monitor last checked every worker."""

    holder: str
    term: int
    leads: bool
    last_pass_at: datetime | None


def latest(connection: sa.Connection) -> Lead | None:
    """Return the present or last leader; None where none has ever led."""
    c = monitor_leases.c
    query = sa.select(c.holder, c.term, c.expires_at > sa.func.skyctl_now(), c.last_pass_at).where(c.name == _NAME)
    row = connection.execute(query).one_or_none()
    return Lead(*row) if row else None


def take(connection: sa.Connection, holder: str, ttl: timedelta, yielding: str | None) -> Lease | None:
    """Take the lease where it is free, or held by `yielding`, and begin a new term; None where another one holds it."""
    values = {"name": _NAME, "holder": holder, "ttl": ttl, "yielding": yielding}
    term = connection.execute(_TAKE, values).scalar_one_or_none()
    return None if term is None else Lease(holder, term)


def hold(connection: sa.Connection, lease: Lease, ttl: timedelta) -> None:
    """Make sure of the lease, prolong it, and keep others from taking it before this transaction ends.

    Raises LostLead where the term has ended: a monitor that was frozen meanwhile writes nothing.
    """
    prolonged = sa.update(monitor_leases).where(*_held(lease), monitor_leases.c.expires_at > sa.func.skyctl_now())
    if not connection.execute(prolonged.values(expires_at=sa.func.skyctl_now() + ttl)).rowcount:
        raise LostLead(f"term {lease.term} has ended", "another monitor leads, or may")


def lock(connection: sa.Connection) -> None:
    """Keep others from taking or prolonging the lease until this transaction ends."""
    connection.execute(sa.select(monitor_leases.c.name).with_for_update())


def release(connection: sa.Connection, lease: Lease) -> None:
    """Give the lease up, so that another monitor can lead at once."""
    connection.execute(sa.update(monitor_leases).where(*_held(lease)).values(expires_at=sa.func.skyctl_now()))


def note_pass(connection: sa.Connection, lease: Lease) -> None:
    """Note that the monitor has checked every worker."""
    connection.execute(sa.update(monitor_leases).where(*_held(lease)).values(last_pass_at=sa.func.skyctl_now()))


def last_pass_at(connection: sa.Connection) -> datetime | None:
    """Return when a monitor last checked every worker."""
    latest: datetime | None = connection.execute(sa.select(sa.func.max(monitor_leases.c.last_pass_at))).scalar_one()
    return latest


def alerted_seq(connection: sa.Connection) -> int:
    """Return the number of the last event of which people have been alerted."""
    seq: int = connection.execute(
        sa.select(monitor_leases.c.alerted_seq).where(monitor_leases.c.name == _NAME)
    ).scalar_one()
    return seq


def note_alerted(connection: sa.Connection, seq: int) -> None:
    """Note the number of the last event of which people have been alerted."""
    connection.execute(sa.update(monitor_leases).where(monitor_leases.c.name == _NAME).values(alerted_seq=seq))


def _held(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    columns = monitor_leases.c
    return columns.name == _NAME, columns.holder == lease.holder, columns.term == lease.term


def engine_trouble(connection: sa.Connection) -> str | None:
    """Return why the engine cannot be asked, as the leader last found; None where it can."""
    c = monitor_leases.c
    return connection.execute(sa.select(c.engine_trouble).where(c.name == _NAME)).scalar_one_or_none()


class EngineAbsence(NamedTuple):
    """Since when the engine cannot be asked, and whether people were told."""

    since: datetime
    is_told: bool


def note_engine_away(connection: sa.Connection, lease: Lease, trouble: str, gap: timedelta) -> EngineAbsence:
    """Note why the engine could not be asked just now; it counts from then on where it was last asked before a longer
    gap. The lease is held."""
    c, now = monitor_leases.c, sa.func.skyctl_now()
    goes_on = c.engine_away_seen_at.between(now - gap, now)
    since = sa.case((goes_on, c.engine_away_since), else_=now)
    noted = sa.update(monitor_leases).where(*_held(lease))
    values = {"engine_trouble": trouble, "engine_away_since": since, "engine_away_seen_at": now}
    row = connection.execute(noted.values(values).returning(c.engine_away_since, c.engine_away_told)).one()
    return EngineAbsence(*row)


def note_engine_told(connection: sa.Connection, lease: Lease) -> None:
    """Note that people were told that the engine cannot be asked. The lease is held."""
    connection.execute(sa.update(monitor_leases).where(*_held(lease)).values(engine_away_told=True))


def note_engine_answer(connection: sa.Connection, lease: Lease) -> EngineAbsence | None:
    """Note that the engine has answered; return what is over, None where nothing was. The lease is held."""
    c = monitor_leases.c
    before = connection.execute(sa.select(c.engine_away_since, c.engine_away_told).where(*_held(lease))).one()
    values = {"engine_trouble": None, "engine_away_since": None, "engine_away_seen_at": None, "engine_away_told": False}
    connection.execute(sa.update(monitor_leases).where(*_held(lease)).values(values))
    return EngineAbsence(*before) if before.engine_away_since else None
