"""What the swarm says of workers' nodes, in the database."""

from collections.abc import Collection
from datetime import timedelta

import sqlalchemy as sa

from skyctl.store.rows import CONFIRMED, STATUS
from skyctl.store.tables import workers
from skyctl.store.workers import HEARD_FROM

_C = workers.c
_NOW = sa.func.skyctl_now()
_WAS_DOWN = _C.node_down_since.is_not(None)


def _is_down(down: Collection[str]) -> sa.ColumnElement[bool]:
    """Tell whether a worker's node is one of these; who is silent says it all by that."""
    of_these = _C.swarm_node_id == sa.any_(sa.cast(list(down), sa.ARRAY(sa.Text)))
    return sa.func.coalesce(sa.and_(of_these, CONFIRMED, STATUS.in_(HEARD_FROM)), sa.false())


def has_any(connection: sa.Connection) -> bool:
    """Tell whether there is a worker with a confirmed node."""
    return bool(connection.execute(sa.select(sa.exists().where(CONFIRMED))).scalar_one())


def has_news(connection: sa.Connection, down: Collection[str]) -> bool:
    """Tell whether there is anything to note where these nodes of the swarm are down, and no others."""
    return bool(connection.execute(sa.select(sa.exists().where(sa.or_(_WAS_DOWN, _is_down(down))))).scalar_one())


def note(connection: sa.Connection, down: Collection[str], grace: timedelta) -> bool:
    """Note that these nodes of the swarm are down, and no others; tell whether that is news of the health of a worker,
    given for how long its node may be down."""
    is_down = _is_down(down)
    is_beyond = sa.func.coalesce(_C.node_down_seen_at - _C.node_down_since > grace, sa.false())
    noted = (
        sa.update(workers)
        .where(sa.or_(_WAS_DOWN, is_down))
        .values(
            node_down_since=sa.case((is_down, sa.func.coalesce(_C.node_down_since, _NOW))),
            node_down_seen_at=sa.case((is_down, _NOW)),
        )
    )
    return any(connection.execute(noted.returning(_C.engine_failed_at.is_not(None) != is_beyond)).scalars())
