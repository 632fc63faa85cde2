"""What the monitor tells `serve` of the swarm, and which nodes it is asked to take out of it."""

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from skyctl.domain.engine import SwarmJoin
from skyctl.store.tables import node_removals, swarm_joins, workers


class NodeRemoval(NamedTuple):
    """A node that is to leave the swarm, and the name of the worker that it was."""

    node_id: str
    worker_name: str
    is_a_workers: bool


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


def ask_removal(connection: sa.Connection, node_id: str, worker_name: str) -> None:
    """Ask for a node to be taken out of the swarm."""
    insert = postgresql.insert(node_removals).values(node_id=node_id, worker_name=worker_name)
    connection.execute(insert.on_conflict_do_nothing())


def removals(connection: sa.Connection, limit: int) -> list[NodeRemoval]:
    """Return the nodes that are to leave the swarm, those asked for first at first."""
    is_a_workers = sa.exists().where(workers.c.swarm_node_confirmed == node_removals.c.node_id)
    query = sa.select(node_removals.c.node_id, node_removals.c.worker_name, is_a_workers.label("is_a_workers"))
    query = query.order_by(node_removals.c.asked_at).limit(limit)
    return [NodeRemoval(*row) for row in connection.execute(query)]


def end_removals(connection: sa.Connection, node_ids: Collection[str]) -> None:
    """Forget the nodes: they have left the swarm, or stay in it."""
    connection.execute(sa.delete(node_removals).where(node_removals.c.node_id.in_(node_ids)))
