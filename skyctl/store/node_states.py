"""What the swarm says of workers' nodes, in the database."""

from collections.abc import Collection
from datetime import timedelta

import sqlalchemy as sa

from skyctl.store.cluster_stats import HEARD_FROM
from skyctl.store.rows import CONFIRMED, HAS_LEFT, STATUS
from skyctl.store.tables import workers

LONGEST_GAP = timedelta(seconds=45)
"""Between two looks, several times the pause between them: what was seen before a longer one says nothing of it."""

_C = workers.c
_NOW = sa.func.skyctl_now()
_WAS_DOWN = _C.node_down_since.is_not(None)


def _is_down(up: Collection[str]) -> sa.ColumnElement[bool]:
    """Tell whether a worker's node is none of these, be it gone from the swarm, or left by its host; who is silent says
    it all by that."""
    is_up = _C.swarm_node_id == sa.any_(sa.cast(list(up), sa.ARRAY(sa.Text)))
    is_gone = sa.or_(sa.and_(sa.not_(is_up), CONFIRMED), HAS_LEFT)
    return sa.func.coalesce(sa.and_(is_gone, STATUS.in_(HEARD_FROM)), sa.false())


def _is_found(up: Collection[str]) -> sa.ColumnElement[bool]:
    """Tell whether a worker's node was lost, and is one of these again."""
    is_up = _C.swarm_node_confirmed == sa.any_(sa.cast(list(up), sa.ARRAY(sa.Text)))
    return sa.func.coalesce(sa.and_(_C.node_lost_at.is_not(None), is_up), sa.false())


def has_any(connection: sa.Connection) -> bool:
    """Tell whether there is a worker with a confirmed node, or one that has left, or whose node was down when the swarm
    was last asked."""
    return bool(connection.execute(sa.select(sa.exists().where(sa.or_(CONFIRMED, HAS_LEFT, _WAS_DOWN)))).scalar_one())


def has_news(connection: sa.Connection, up: Collection[str]) -> bool:
    """Tell whether there is anything to note where these nodes of the swarm are up, and no others."""
    return bool(
        connection.execute(sa.select(sa.exists().where(sa.or_(_WAS_DOWN, _is_down(up), _is_found(up))))).scalar_one()
    )


def note(connection: sa.Connection, up: Collection[str], grace: timedelta) -> bool:
    """Note that these nodes of the swarm are up, and no others; tell whether that is news of the health of a worker,
    given for how long its node may be down. What somebody else is changing is noted the next time."""
    is_down, is_found = _is_down(up), _is_found(up)
    is_beyond = sa.func.coalesce(_C.node_down_seen_at - _C.node_down_since > grace, sa.false())
    free = (
        sa.select(_C.id).where(sa.or_(_WAS_DOWN, is_down, is_found)).with_for_update(skip_locked=True, key_share=True)
    )
    since = sa.case((_C.node_down_seen_at > _NOW - LONGEST_GAP, _C.node_down_since), else_=_NOW)
    noted = (
        sa.update(workers)
        .where(_C.id.in_(free))
        .values(
            node_down_since=sa.case((is_down, since)),
            node_down_seen_at=sa.case((is_down, _NOW)),
            node_lost_at=sa.case((is_found, None), else_=_C.node_lost_at),
        )
    )
    return any(connection.execute(noted.returning(_C.engine_failed_at.is_not(None) != is_beyond)).scalars())
