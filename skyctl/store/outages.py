"""The `serve` processes that run, and the times when none did."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.cluster import Outage
from skyctl.store.tables import serve_instances, serve_outages

LOCK = 7_392_443
_LONGEST_LIST = 1000

_NOTE_GAP = sa.text("""
    INSERT INTO serve_outages (started_at, ended_at)
    SELECT last, skyctl_now() FROM (SELECT max(last_seen_at) AS last FROM serve_instances) AS seen
    WHERE last < skyctl_now() - CAST(:gap AS interval)
""")
_TOUCH = sa.text("""
    INSERT INTO serve_instances AS i (id, hostname, pid) VALUES (:id, :hostname, :pid)
    ON CONFLICT (id) DO UPDATE SET last_seen_at = greatest(i.last_seen_at, excluded.last_seen_at)
""")


def touch(connection: sa.Connection, instance: UUID, hostname: str, pid: int, gap: timedelta) -> None:
    """Note that a process can hear workers; the first one after a longer gap in which none could writes it down."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    connection.execute(_NOTE_GAP, {"gap": gap})
    connection.execute(_TOUCH, {"id": instance, "hostname": hostname, "pid": pid})


def forget(connection: sa.Connection, age: timedelta) -> None:
    """Forget processes and outages that are older; the process that was seen last stays, for it tells when a gap
    began."""
    latest = sa.select(sa.func.max(serve_instances.c.last_seen_at)).scalar_subquery()
    old = serve_instances.c.last_seen_at < sa.func.skyctl_now() - age
    connection.execute(sa.delete(serve_instances).where(old, serve_instances.c.last_seen_at < latest))
    connection.execute(sa.delete(serve_outages).where(serve_outages.c.ended_at < sa.func.skyctl_now() - age))


def last_seen_at(connection: sa.Connection) -> datetime | None:
    """The time at which a process last could hear workers; None where none ever ran."""
    latest: datetime | None = connection.execute(sa.select(sa.func.max(serve_instances.c.last_seen_at))).scalar_one()
    return latest


def recorded(connection: sa.Connection) -> Sequence[Outage]:
    """The latest times in which no process could hear workers."""
    rows = sa.select(serve_outages.c.started_at, serve_outages.c.ended_at)
    outages = connection.execute(rows.order_by(serve_outages.c.ended_at.desc()).limit(_LONGEST_LIST))
    return [Outage(*row) for row in outages]


def record(connection: sa.Connection, outage: Outage) -> None:
    """Write down a time in which workers could not be heard."""
    connection.execute(sa.insert(serve_outages).values(outage._asdict()))


def is_known(connection: sa.Connection, outage: Outage) -> bool:
    """Tell whether most of an outage is written down already."""
    middle = outage.started_at + (outage.ended_at - outage.started_at) / 2
    known = sa.exists().where(serve_outages.c.started_at <= middle, serve_outages.c.ended_at >= middle)
    return bool(connection.execute(sa.select(known)).scalar_one())
