"""What the swarm says of workers' nodes, in the database."""

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from skyctl.store.rows import CONFIRMED
from skyctl.store.tables import workers

_DOWN = workers.c.node_down_since.is_not(None)


def has_any(connection: sa.Connection) -> bool:
    """Tell whether there is a worker with a confirmed node."""
    return bool(connection.execute(sa.select(sa.exists().where(CONFIRMED))).scalar_one())


def has_down(connection: sa.Connection) -> bool:
    """Tell whether there is a worker whose node was down when the swarm was last asked."""
    return bool(connection.execute(sa.select(sa.exists().where(_DOWN))).scalar_one())


def note(connection: sa.Connection, down: Sequence[str], grace: timedelta) -> bool:
    """Note that these nodes of the swarm are down, and no others; tell whether that is news of the health of a worker,
    given for how long its node may be down. Of who is silent anyway nothing is noted."""
    rows = connection.execute(_NOTE, {"down": list(down), "grace": grace})
    return any(rows.scalars())


_NOTE = sa.text("""
    WITH seen AS (
        SELECT id, swarm_node_id = ANY (CAST(:down AS text[])) AND swarm_node_id = swarm_node_confirmed
                   AND status IN ('active', 'unhealthy', 'draining') AS is_down
        FROM container_workers
        WHERE node_down_since IS NOT NULL OR swarm_node_id = ANY (CAST(:down AS text[]))
    )
    UPDATE container_workers AS w
    SET node_down_since = CASE WHEN seen.is_down THEN coalesce(w.node_down_since, skyctl_now()) END,
        node_down_seen_at = CASE WHEN seen.is_down THEN skyctl_now() END
    FROM seen WHERE w.id = seen.id AND (seen.is_down IS TRUE OR w.node_down_since IS NOT NULL)
    RETURNING (w.engine_failed_at IS NOT NULL)
              <> coalesce(w.node_down_seen_at - w.node_down_since > CAST(:grace AS interval), false)
""")
