"""The doctor's questions about the workers: how many meet a condition, and which."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import WorkerStatus
from skyctl.domain.tokens import WORKER_KEY_ID
from skyctl.store.counts import NOT_ACTIVE
from skyctl.store.rows import STATUS
from skyctl.store.tables import workers
from skyctl.store.tokens import TAKES_ANOTHER

_NOW = sa.func.skyctl_now()
# Written as in the indexes that hold none but the workers of which it is so.
_OFFSET: sa.ColumnElement[float] = sa.literal_column(
    "skyctl_figure(container_workers.metadata, 'clockOffsetSeconds', 'clock_offset_seconds')", sa.Double()
)
_SAYS_PLAIN_HTTP: sa.ColumnElement[bool] = sa.literal_column(
    "container_workers.metadata -> 'plainHttp' = 'true'", sa.Boolean()
)
_BY_SHARED_KEY: sa.ColumnElement[bool] = sa.literal_column(
    "container_workers.hostname <> '' AND container_workers.auth_token_hash <> ''"
    f" AND NOT starts_with(coalesce(container_workers.auth_token_key, ''), '{WORKER_KEY_ID}')",
    sa.Boolean(),
)


class Member(NamedTuple):
    """One of the workers that meet a condition, and the figure or time that says since when or by how much."""

    name: str
    id: UUID
    figure: Any


class Group(NamedTuple):
    """The number of workers that meet a condition, and the first of them."""

    size: int
    first: Sequence[Member]


def at_defaults(connection: sa.Connection, names: Sequence[str]) -> Sequence[str]:
    """Those of PostgreSQL's settings that are as it comes, in this order."""
    asked = sa.text("SELECT name FROM pg_settings WHERE name = ANY(:names) AND setting = boot_val")
    found = set(connection.scalars(asked, {"names": list(names)}))
    return [name for name in names if name in found]


def of_status(connection: sa.Connection, status: WorkerStatus, most: int) -> Group:
    """The workers of a status, each with its last heartbeat."""
    return _group(connection, workers.c.last_heartbeat_at, most, NOT_ACTIVE, STATUS.in_([status]))


def without_engine(connection: sa.Connection, most: int) -> Group:
    """The workers whose engine has failed, each with when that was concluded."""
    failed_at = workers.c.engine_failed_at
    may_fail = STATUS.in_([WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING])
    return _group(connection, failed_at, most, failed_at.is_not(None), may_fail)


def pending_for(connection: sa.Connection, age: timedelta, most: int) -> Group:
    """The workers that were invited longer ago and not yet heard from, each with its invitation."""
    invited = workers.c.created_at
    return _group(connection, invited, most, NOT_ACTIVE, STATUS.in_([WorkerStatus.PENDING]), invited < _NOW - age)


def tokens_expired(connection: sa.Connection, most: int) -> Group:
    """The workers whose token is no longer good, each with its end; invitations that nobody used are not among them."""
    end = workers.c.auth_token_expires_at
    return _group(connection, end, most, end <= _NOW, workers.c.hostname != "")


def tokens_expiring(connection: sa.Connection, within: timedelta, most: int) -> Group:
    """The workers whose token is still good, but not for longer than this, each with its end."""
    end = workers.c.auth_token_expires_at
    return _group(connection, end, most, end > _NOW, end <= _NOW + within, workers.c.hostname != "")


def tokens_of_shared_key(connection: sa.Connection, most: int) -> Group:
    """The workers that registered and whose token was not signed by the workers' own key, each with whether its agent
    takes another one."""
    return _group(connection, TAKES_ANOTHER, most, _BY_SHARED_KEY)


def clocks_off(connection: sa.Connection, by: timedelta, most: int) -> Group:
    """The workers whose clock was further off when they registered, each with by how many seconds it was ahead."""
    return _group(connection, _OFFSET, most, sa.func.abs(_OFFSET) > sa.literal_column(f"{by.total_seconds():g}"))


def over_plain_http(connection: sa.Connection, most: int) -> Group:
    """The workers whose agents said that they report over plain HTTP through a network, each with its address."""
    return _group(connection, sa.func.host(workers.c.ip_address), most, _SAYS_PLAIN_HTTP)


def _group(
    connection: sa.Connection, figure: sa.ColumnElement[Any], most: int, *conditions: sa.ColumnElement[bool]
) -> Group:
    query = sa.select(workers.c.name, workers.c.id, figure, sa.func.count().over()).where(*conditions)
    # each has an index of few; the planner, which knows nothing of such conditions, takes them for a third of all
    connection.execute(sa.select(sa.func.set_config("enable_seqscan", "off", True)))
    rows = connection.execute(query.order_by(workers.c.name, workers.c.id).limit(most)).all()
    return Group(rows[0][3] if rows else 0, [Member(*row[:3]) for row in rows])
