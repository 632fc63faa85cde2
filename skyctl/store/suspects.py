"""The workers that a pass of the monitor may have to conclude, as far as that needs them: up to all that there are."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from skyctl.documents import http
from skyctl.domain.states import WorkerStatus
from skyctl.domain.suspects import Suspect
from skyctl.store.rows import among, known_cpu
from skyctl.store.tables import workers

_c = workers.c


def _text(field: str) -> sa.ColumnElement[str | None]:
    """What metadata says in text."""
    return sa.case((sa.func.jsonb_typeof(_c.metadata[field]) == "string", _c.metadata[field].astext))


_OF_SQL: dict[str, sa.ColumnElement[Any]] = {
    "load": _c.current_load,
    # what else metadata says is long, and nothing is concluded from it
    "engine_trouble": sa.case((_c.engine_away_since.is_not(None), _text("engineTrouble"))),
    "region": _text("region"),
}
_COLUMNS = [_OF_SQL[name] if name in _OF_SQL else _c[name] for name in Suspect._fields]
_STATUS: dict[str | None, WorkerStatus] = {
    None: WorkerStatus.PENDING,
    **{status.value: status for status in WorkerStatus},
}


def fetch(connection: sa.Connection, worker_ids: Collection[UUID]) -> list[Suspect]:
    """These workers, by name."""
    query = sa.select(*_COLUMNS).where(among(_c.id, worker_ids)).order_by(_c.name, _c.id)
    return [_read(Suspect._make(row)) for row in connection.execute(query).all()]


def _read(row: Suspect) -> Suspect:
    """A suspect of a row, in which some are still as they are stored."""
    load = http.load(row.load)
    return row._replace(
        status=_STATUS[row.status],
        concluded_status=_STATUS[row.concluded_status] if row.concluded_status else None,
        load=load,
        recent_cpu=known_cpu(row.recent_cpu, load),
        engine_trouble=row.engine_trouble or "",
    )
