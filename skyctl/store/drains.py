"""Drains in the database: asked for, over, and the engine's nodes that take nothing new meanwhile."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.drains import DrainOptions
from skyctl.domain.states import WorkerStatus
from skyctl.store.rows import CONFIRMED, STATUS, among, among_texts
from skyctl.store.tables import migrations, workers

_NOW = sa.func.skyctl_now()
_C = workers.c
# The index holds those alone that this says.
_HAS_NODE = _C.swarm_node_confirmed.is_not(None)  # whatever its host says by now
_DRAINED = sa.or_(_C.drain_requested_at.is_not(None), _C.node_paused_at.is_not(None))
_CORDONED = _C.cordoned_at.is_not(None)


class Drained(NamedTuple):
    """A worker of which nothing is on its way any more, and nothing will be moved off; its node that was confirmed
    last; how many containers the engine had there, and since when; `force`: what is left is to be stopped;
    `keep_global`: what runs on every node is not; whether we have closed the node."""

    worker_id: UUID
    name: str
    node_id: str | None
    containers: int | None
    counted_at: datetime | None
    overdue: bool
    is_late: bool
    force: bool
    keep_global: bool
    is_closed_by_us: bool


def request(connection: sa.Connection, worker_id: UUID, drain_options: DrainOptions) -> bool:
    """Note that an administrator wants the worker empty, and how; False where just that stood already.

    A drain that is over begins again.
    """
    over = _C.drain_finished_at.is_not(None)
    # what stayed is asked again where it may leave its data by now
    begins: list[sa.ColumnElement[bool]] = [
        _C.drain_requested_at.is_(None),
        over,
    ]  # what stayed is asked again where it may leave its data by now
    begins += [sa.not_(_C.drain_move_local_data)] if drain_options.move_local_data else []
    values: dict[str, Any] = {
        "drain_requested_at": sa.case((sa.or_(*begins), _NOW), else_=_C.drain_requested_at),
        "drain_reason": sa.func.coalesce(drain_options.reason, _C.drain_reason),
        "drain_max_parallel": sa.func.coalesce(drain_options.max_parallel, _C.drain_max_parallel),
        "drain_keep_global": drain_options.keep_global,
        "drain_move_local_data": drain_options.move_local_data,
        "drain_by_swarm": False,
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
    changes += [
        _C.drain_keep_global.is_distinct_from(drain_options.keep_global),
        _C.drain_move_local_data.is_distinct_from(drain_options.move_local_data),
        _C.drain_by_swarm,
    ]
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


def said_by_swarm(connection: sa.Connection, node_ids: Sequence[str]) -> dict[UUID, str]:
    """Return the workers, with their names, of which the swarm alone says that they are to be empty: these nodes are
    set to `drain`, and not by a drain of ours."""
    is_set = (CONFIRMED, among_texts(_C.swarm_node_id, node_ids))
    wanted = (*is_set, _C.drain_requested_at.is_(None), _C.node_paused_at.is_(None))
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.id, _C.name).where(*wanted).order_by(_C.id))}


def no_longer_said(connection: sa.Connection, node_ids: Sequence[str]) -> dict[UUID, str]:
    """Return the workers, with their names, that the swarm alone said are to be empty, and whose nodes are these, which
    take new containers again."""
    wanted = (_DRAINED, _C.drain_by_swarm, among_texts(_C.swarm_node_confirmed, node_ids))
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.id, _C.name).where(*wanted).order_by(_C.id))}


def note_said_by_swarm(connection: sa.Connection, worker_id: UUID) -> None:
    """Note that the swarm alone says that a worker is to be empty: its node takes nothing new until that is over."""
    said = sa.update(workers).where(_C.id == worker_id)
    connection.execute(said.values(drain_by_swarm=True, node_paused_at=_NOW))


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
        "drain_keep_global": False,
        "drain_move_local_data": False,
        "drain_by_swarm": False,
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
        _C.drain_keep_global,
        _C.node_paused_at.is_not(None),
    ).where(_DRAINED, _C.drain_requested_at.is_not(None), _C.drain_finished_at.is_(None), sa.not_(on_the_way))
    return [Drained(*row) for row in connection.execute(query.order_by(_C.name, _C.id))]


def open_nodes(connection: sa.Connection) -> dict[UUID, str]:
    """Return the workers whose drains are not over, each with its node that was confirmed last."""
    wanted = (_DRAINED, _C.drain_requested_at.is_not(None), _C.drain_finished_at.is_(None), _HAS_NODE)
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.id, _C.swarm_node_confirmed).where(*wanted))}


def note_containers(connection: sa.Connection, worker_id: UUID, containers: int) -> None:
    """Note that the engine has so many containers on a drained worker's node since now."""
    hold_heartbeats(connection)
    counted = sa.update(workers).where(_C.id == worker_id)
    connection.execute(counted.values(drain_containers=containers, drain_counted_at=_NOW))


def counted(connection: sa.Connection, worker_id: UUID) -> tuple[int | None, datetime | None]:
    """Return how many containers the engine had on a drained worker's node when that was last noted, and since when."""
    row = connection.execute(sa.select(_C.drain_containers, _C.drain_counted_at).where(_C.id == worker_id)).one()
    return row[0], row[1]


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
    """By the engine's id, the nodes confirmed last that are to take nothing new, but those that somebody closed in the
    swarm: who opens one there ends its drain."""
    is_open = sa.or_(_C.node_paused_at.is_(None), _C.drain_finished_at.is_(None))  # somebody may have opened it again
    drained = (_DRAINED, _C.drain_requested_at.is_not(None), is_open, sa.not_(_C.drain_by_swarm))
    return _nodes(connection, *drained) | _nodes(connection, _CORDONED, _C.drain_requested_at.is_(None))


def take_over_closed(connection: sa.Connection, node_ids: Collection[str]) -> None:
    """Note that these nodes, confirmed to be of workers by now, were closed by us for workers that were before."""
    is_theirs = _C.swarm_node_confirmed == sa.any_(sa.cast(list(node_ids), sa.ARRAY(sa.Text)))
    connection.execute(sa.update(workers).where(is_theirs, _C.node_paused_at.is_(None)).values(node_paused_at=_NOW))


def nodes_left_by_drains(connection: sa.Connection) -> dict[str, UUID]:
    """By the engine's id, the nodes confirmed last that we closed, and that are cordoned and no longer drained: at its
    end a drain may have stopped what runs on every node."""
    return _nodes(connection, _CORDONED, _C.drain_requested_at.is_(None), _C.node_paused_at.is_not(None))


def nodes_to_resume(connection: sa.Connection) -> dict[str, UUID]:
    """By the engine's id, the nodes confirmed last that took nothing new because of a drain or a cordon that was taken
    back."""
    is_over = (_DRAINED, _C.drain_requested_at.is_(None), sa.not_(_CORDONED))
    return _nodes(connection, *is_over, _C.node_paused_at.is_not(None))


def _nodes(connection: sa.Connection, *wanted: sa.ColumnElement[bool]) -> dict[str, UUID]:
    query = sa.select(_C.swarm_node_confirmed, _C.id).where(*wanted, _HAS_NODE)
    return {row[0]: row[1] for row in connection.execute(query)}


def note_nodes(connection: sa.Connection, paused: Sequence[UUID], resumed: Sequence[UUID]) -> None:
    """Note whose nodes take nothing new, and whose do again."""
    hold_heartbeats(connection)
    connection.execute(sa.update(workers).where(among(_C.id, paused)).values(node_paused_at=_NOW))
    connection.execute(sa.update(workers).where(among(_C.id, resumed)).values(node_paused_at=None))


def leaving_local_data(connection: sa.Connection) -> set[UUID]:
    """Return the workers off which what keeps data there is moved without it."""
    wanted = (_DRAINED, _C.drain_move_local_data)
    return set(connection.execute(sa.select(_C.id).where(*wanted)).scalars())


def max_parallel(connection: sa.Connection) -> dict[UUID, int]:
    """By worker, how many containers may leave it at once, where somebody said so."""
    limited = (_DRAINED, _C.drain_max_parallel.is_not(None))
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.id, _C.drain_max_parallel).where(*limited))}
