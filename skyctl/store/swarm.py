"""What the monitor tells `serve` of the swarm, and which nodes it is asked to take out of it."""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from skyctl.domain.engine import SwarmJoin
from skyctl.store.tables import node_removals, swarm_joins, workers


class NodeRemoval(NamedTuple):
    """A node that is to leave the swarm, the name of the worker that it was, whether we closed it, and whether it is a
    worker's again."""

    node_id: str
    worker_name: str
    is_closed: bool
    is_a_workers: bool = False


class KnownJoin(NamedTuple):
    """How a host joins the swarm, as the monitor last found it; None where there is no swarm."""

    join: SwarmJoin | None


def known_join(connection: sa.Connection) -> KnownJoin | None:
    """Return how a host joins the swarm; None where no monitor has looked yet."""
    row = connection.execute(sa.select(swarm_joins.c.address, swarm_joins.c.token)).one_or_none()
    if row is None:
        return None
    return KnownJoin(SwarmJoin(row.address, row.token) if row.address and row.token else None)


def note_join(connection: sa.Connection, join: SwarmJoin | None) -> None:
    """Note how a host joins the swarm; None where there is no swarm."""
    values = {"address": join.address if join else None, "token": join.token if join else None}
    insert = postgresql.insert(swarm_joins).values(is_only=True, **values)
    changed = {**values, "updated_at": sa.func.skyctl_now()}
    connection.execute(insert.on_conflict_do_update(index_elements=[swarm_joins.c.is_only], set_=changed))


def ask_removal(connection: sa.Connection, worker_id: UUID) -> NodeRemoval | None:
    """Ask for the confirmed node of a worker to be taken out of the swarm; None where it has none."""
    c = workers.c
    is_closed = sa.and_(c.node_paused_at.is_not(None), sa.not_(c.drain_by_swarm))
    asked = sa.select(c.swarm_node_confirmed, c.name, is_closed)
    row = connection.execute(asked.where(c.id == worker_id, c.swarm_node_confirmed.is_not(None))).one_or_none()
    if row is None:
        return None
    removal = NodeRemoval(*row)
    values = {"node_id": removal.node_id, "worker_name": removal.worker_name, "is_closed": removal.is_closed}
    insert = postgresql.insert(node_removals).values(values)
    either = sa.or_(node_removals.c.is_closed, insert.excluded.is_closed)
    connection.execute(insert.on_conflict_do_update(index_elements=["node_id"], set_={"is_closed": either}))
    return removal


def removals(connection: sa.Connection, limit: int) -> list[NodeRemoval]:
    """Return the nodes that are to leave the swarm, those asked for first at first."""
    is_a_workers = sa.exists().where(workers.c.swarm_node_confirmed == node_removals.c.node_id)
    c = node_removals.c
    query = sa.select(c.node_id, c.worker_name, c.is_closed, is_a_workers.label("is_a_workers"))
    query = query.order_by(c.asked_at).limit(limit)
    return [NodeRemoval(*row) for row in connection.execute(query)]


def end_removals(connection: sa.Connection, node_ids: Collection[str]) -> None:
    """Forget the nodes: they have left the swarm, or stay in it."""
    connection.execute(sa.delete(node_removals).where(node_removals.c.node_id.in_(node_ids)))
