"""How many workers there are: all of them by a count that the database keeps, those that are not active by an index."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from skyctl.domain.states import WorkerStatus
from skyctl.store.rows import STATUS
from skyctl.store.tables import worker_counts, workers

NOT_ACTIVE: sa.ColumnElement[bool] = workers.c.status.is_distinct_from(sa.literal_column("'active'"))
_COMPACT = sa.text("""
    WITH gone AS (DELETE FROM worker_counts WHERE (SELECT count(*) FROM worker_counts) > 1 RETURNING delta)
    INSERT INTO worker_counts (delta) SELECT sum(delta) FROM gone HAVING count(*) > 0
""")


def workers_in_all(connection: sa.Connection) -> int:
    """The number of workers, exactly."""
    kept = sa.func.coalesce(sa.func.sum(worker_counts.c.delta), 0)
    return int(connection.execute(sa.select(kept)).scalar_one())


def by_status(connection: sa.Connection) -> Mapping[WorkerStatus, int]:
    """The number of workers of each status that a worker has, exactly."""
    counted = sa.select(STATUS, sa.func.count()).where(NOT_ACTIVE).group_by(STATUS)
    found = {WorkerStatus(status): number for status, number in connection.execute(counted)}
    active = workers_in_all(connection) - sum(found.values())
    return found | ({WorkerStatus.ACTIVE: active} if active > 0 else {})


def of_statuses(connection: sa.Connection, statuses: Collection[WorkerStatus]) -> int:
    """The number of workers of these statuses, exactly."""
    found = by_status(connection)
    return sum(found.get(status, 0) for status in set(statuses))


def compact(connection: sa.Connection) -> None:
    """Make one row of the rows that the count consists of."""
    connection.execute(_COMPACT)
