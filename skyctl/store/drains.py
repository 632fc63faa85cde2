"""Drains in the database: asked for, over, and the engine's nodes that take nothing new meanwhile."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import WorkerStatus
from skyctl.domain.workloads import DrainOptions
from skyctl.store.rows import STATUS, among
from skyctl.store.tables import migrations, workers

_NOW = sa.func.skyctl_now()
_C = workers.c
# The index holds those alone that this says.
_HAS_NODE = _C.swarm_node_confirmed.is_not(None)  # whatever its host says by now
_DRAINED = sa.or_(_C.drain_requested_at.is_not(None), _C.node_paused_at.is_not(None))


class Drained(NamedTuple):
    """A worker of which nothing is on its way any more, and nothing will be moved off; its node that was confirmed
    last; how many containers the engine had there, and since when; `force`: what is left is to be stopped."""

    worker_id: UUID
    name: str
    node_id: str | None
    containers: int | None
    counted_at: datetime | None
    overdue: bool
    is_late: bool
    force: bool


def request(connection: sa.Connection, worker_id: UUID, drain_options: DrainOptions) -> bool:
    """Note that an administrator wants the worker empty, and how; False where just that stood already.

    A drain that is over begins again.
    """
    over = _C.drain_finished_at.is_not(None)
    values: dict[str, Any] = {
        "drain_requested_at": sa.case(
            (sa.or_(_C.drain_requested_at.is_(None), over), _NOW), else_=_C.drain_requested_at
        ),
        "drain_reason": sa.func.coalesce(drain_options.reason, _C.drain_reason),
        "drain_max_parallel": sa.func.coalesce(drain_options.max_parallel, _C.drain_max_parallel),
        "drain_finished_at": None,
        "drain_containers": None,
        "drain_counted_at": None,
        "undrained_at": None,
        "updated_at": _NOW,
    }
    if drain_options.deadline is not None:
        values |= {"drain_deadline_at": _NOW + drain_options.deadline, "drain_force": drain_options.force}
    else:
        values |= {"drain_deadline_at": sa.case((over, None), else_=_C.drain_deadline_at)}
    changes = [_C.drain_requested_at.is_(None), over, sa.literal(drain_options.deadline is not None)]
    changes += [] if drain_options.reason is None else [_C.drain_reason.is_distinct_from(drain_options.reason)]
    changes += (
        []
        if drain_options.max_parallel is None
        else [_C.drain_max_parallel.is_distinct_from(drain_options.max_parallel)]
    )
    asked = sa.update(workers).where(_C.id == worker_id, sa.or_(*changes))
    return connection.execute(asked.values(values)).rowcount > 0


def said_by_status(connection: sa.Connection) -> dict[UUID, str]:
    """Return the workers, with their names, of which the status alone says that they are to be empty: the panel writes
    no more."""
    wanted = (_C.status == WorkerStatus.DRAINING, _C.drain_requested_at.is_(None), _C.undrained_at.is_(None))
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.id, _C.name).where(*wanted).order_by(_C.id))}


def hold_heartbeats(connection: sa.Connection) -> None:
    """Block the storing of heartbeats until this transaction ends, which is to be short.

    Who writes several workers needs it: a batch of heartbeats takes them in an order of its own, and each would wait
    for the other.
    """
    connection.execute(sa.text("LOCK TABLE container_workers IN SHARE ROW EXCLUSIVE MODE"))


def end(connection: sa.Connection, worker_id: UUID) -> None:
    """Note that nobody wants the worker empty any more."""
    values = {
        "drain_requested_at": None,
        "drain_reason": None,
        "drain_deadline_at": None,
        "drain_max_parallel": None,
        "drain_force": False,
        "drain_finished_at": None,
        "updated_at": _NOW,
        "undrained_at": sa.case((STATUS == WorkerStatus.DRAINING, _NOW)),
    }
    connection.execute(sa.update(workers).where(_C.id == worker_id).values(values))


def ending(connection: sa.Connection, patience: timedelta) -> list[Drained]:
    """The drained workers of which nothing is under way or waits, and that were not noted as over. They are late so
    long after their deadline."""
    on_the_way = sa.exists().where(
        migrations.c.finished_at.is_(None),
        sa.or_(migrations.c.source_worker_id == _C.id, migrations.c.target_worker_id == _C.id),
    )
    overdue = sa.func.coalesce(_C.drain_deadline_at <= _NOW, False)
    query = sa.select(
        _C.id,
        _C.name,
        _C.swarm_node_confirmed,
        _C.drain_containers,
        _C.drain_counted_at,
        overdue,
        sa.func.coalesce(_C.drain_deadline_at + patience <= _NOW, False),
        sa.and_(_C.drain_force, overdue),
    ).where(_DRAINED, _C.drain_requested_at.is_not(None), _C.drain_finished_at.is_(None), sa.not_(on_the_way))
    return [Drained(*row) for row in connection.execute(query.order_by(_C.name, _C.id))]


def note_containers(connection: sa.Connection, worker_id: UUID, containers: int) -> None:
    """Note that the engine has so many containers on a drained worker's node since now."""
    hold_heartbeats(connection)
    counted = sa.update(workers).where(_C.id == worker_id)
    connection.execute(counted.values(drain_containers=containers, drain_counted_at=_NOW))


def note_over(connection: sa.Connection, worker_ids: Sequence[UUID]) -> None:
    """Note that the drains of these workers are over."""
    if not worker_ids:
        return
    hold_heartbeats(connection)
    over = sa.update(workers).where(among(_C.id, worker_ids))
    connection.execute(over.values(drain_finished_at=_NOW, updated_at=_NOW))


def next_deadline_seconds(connection: sa.Connection) -> float | None:
    """In how many seconds the next drain's deadline passes."""
    running = (_DRAINED, _C.drain_finished_at.is_(None), _C.drain_deadline_at > _NOW)
    left = sa.func.extract("epoch", sa.func.min(_C.drain_deadline_at) - _NOW)
    seconds = connection.execute(sa.select(left).where(*running)).scalar_one()
    return None if seconds is None else float(seconds)


def nodes_to_pause(connection: sa.Connection) -> dict[str, UUID]:
    """By the engine's id, the nodes confirmed last that are to take nothing new."""
    is_open = sa.or_(_C.node_paused_at.is_(None), _C.drain_finished_at.is_(None))  # somebody may have opened it again
    wanted = (_DRAINED, _C.drain_requested_at.is_not(None), is_open, _HAS_NODE)
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.swarm_node_confirmed, _C.id).where(*wanted))}


def nodes_to_resume(connection: sa.Connection) -> dict[str, UUID]:
    """By the engine's id, the nodes confirmed last that took nothing new because of a drain that was cancelled."""
    wanted = (_DRAINED, _C.drain_requested_at.is_(None), _C.node_paused_at.is_not(None), _HAS_NODE)
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.swarm_node_confirmed, _C.id).where(*wanted))}


def note_nodes(connection: sa.Connection, paused: Sequence[UUID], resumed: Sequence[UUID]) -> None:
    """Note whose nodes take nothing new, and whose do again."""
    hold_heartbeats(connection)
    connection.execute(sa.update(workers).where(among(_C.id, paused)).values(node_paused_at=_NOW))
    connection.execute(sa.update(workers).where(among(_C.id, resumed)).values(node_paused_at=None))


def max_parallel(connection: sa.Connection) -> dict[UUID, int]:
    """By worker, how many containers may leave it at once, where somebody said so."""
    limited = (_DRAINED, _C.drain_max_parallel.is_not(None))
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.id, _C.drain_max_parallel).where(*limited))}
