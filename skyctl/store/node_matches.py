"""Workers and the nodes that they say, hold or were matched with, in the database."""

from collections.abc import Collection, Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array

from skyctl.domain.engine import Place
from skyctl.store.rows import CONFIRMED
from skyctl.store.tables import workers

_C = workers.c
_NOW = sa.func.skyctl_now()
_NODES = (_C.swarm_node_id, _C.swarm_node_claim, _C.swarm_node_allowed)
# an agent that was heard and never registered here; what its row says of a node, the monitor has matched
_SILENT = sa.and_(
    _C.last_heartbeat_at.is_not(None),
    _C.bound_at.is_(None),
    _C.machine_id.is_(None),
    _C.registered_from.is_(None),
    *(sa.or_(node.is_(None), node.is_not_distinct_from(_C.swarm_node_confirmed)) for node in _NODES),
)


def has_silent(connection: sa.Connection) -> bool:
    """Tell whether there is a worker whose agent never says which node it is."""
    return bool(connection.execute(sa.select(sa.exists().where(_SILENT))).scalar_one())


def places(connection: sa.Connection) -> list[Place]:
    """Return all workers, by name."""
    at = sa.func.host(sa.func.coalesce(_C.registered_from, _C.ip_address))
    nodes = sa.func.array_remove(array([sa.cast(node, sa.Text) for node in _NODES]), None)
    columns = (_C.id, _C.name, _C.hostname, at, nodes, _SILENT)
    heard, trouble = _C.last_heartbeat_at.is_not(None), _C.swarm_node_trouble
    query = sa.select(*columns, sa.func.coalesce(CONFIRMED, sa.false()), heard, trouble)
    return [Place(*row) for row in connection.execute(query.order_by(_C.name, _C.id))]


def claim(connection: sa.Connection, matches: Mapping[UUID, str], *, untold: Collection[UUID]) -> None:
    """Note nodes as the claims of workers that still say none themselves; of those that are `untold` nobody is to hear
    where the claim does not count. Heartbeats are held."""
    for worker_id, node_id in matches.items():
        claimed = sa.update(workers).where(_C.id == worker_id, _SILENT)
        told = {"swarm_node_refuted_at": _NOW} if worker_id in untold else {}
        values = {"swarm_node_id": None, "swarm_node_claim": node_id, "swarm_node_trouble": None, "updated_at": _NOW}
        connection.execute(claimed.values(values | told))
