"""What administrators wish of workers beside drains, in the database: cordons, and silences of alerts."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.cluster import Worker
from skyctl.rules.alerts import SAID
from skyctl.store.rows import COLUMNS, among, read
from skyctl.store.tables import alerts, deliveries, workers

_NOW = sa.func.skyctl_now()
_C, _D = workers.c, deliveries.c
_WAITS = (_D.delivered_at.is_(None), _D.given_up_at.is_(None))


def cordon(connection: sa.Connection, worker_id: UUID, reason: str | None) -> bool:
    """Note that a worker is to take nothing new; False where just that stood already."""
    is_other = [_C.cordoned_at.is_(None)] + ([] if reason is None else [_C.cordon_reason.is_distinct_from(reason)])
    values = {
        "cordoned_at": sa.func.coalesce(_C.cordoned_at, _NOW),
        "cordon_reason": sa.func.coalesce(reason, _C.cordon_reason),
    }
    return _set(connection, worker_id, sa.or_(*is_other), **values)


def uncordon(connection: sa.Connection, worker_id: UUID) -> None:
    """Note that a worker may take something new."""
    _set(connection, worker_id, _C.cordoned_at.is_not(None), cordoned_at=None, cordon_reason=None)


def silence(connection: sa.Connection, worker_id: UUID, until: datetime, reason: str | None) -> None:
    """Note that alerts of a worker's health are held back until then; those that wait, too."""
    _set(connection, worker_id, sa.true(), alerts_silenced_until=until, alerts_silenced_reason=reason)
    _hold(connection, worker_id, until)


def unsilence(connection: sa.Connection, worker_id: UUID) -> None:
    """Note that they are held back no more; those that were go now, and not those that are being sent."""
    until = sa.select(_C.alerts_silenced_until).where(_C.id == worker_id).scalar_subquery()
    _hold(connection, worker_id, _NOW, _D.next_attempt_at == until)
    _set(connection, worker_id, sa.true(), alerts_silenced_until=None, alerts_silenced_reason=None)


def silenced(connection: sa.Connection, worker_ids: Iterable[UUID] | None = None) -> list[Worker]:
    """Return the workers whose alerts are held back now, by name: all of them, or of these."""
    query = sa.select(*COLUMNS).where(_C.alerts_silenced_until > _NOW)
    if worker_ids is not None:
        query = query.where(among(_C.id, worker_ids))
    return [read(row) for row in connection.execute(query.order_by(_C.name, _C.id))]


def drop_held(connection: sa.Connection, worker_id: UUID, kinds: Sequence[str]) -> set[tuple[int, str]]:
    """Remove what no channel was told yet of a worker's alerts of these kinds; return the alerts and the channels."""
    about = sa.select(alerts.c.id).where(alerts.c.worker_id == worker_id, alerts.c.kind.in_(kinds))
    untold = sa.delete(deliveries).where(_D.alert_id.in_(about), *_WAITS, _D.attempts == 0)
    return {(row.alert_id, row.channel) for row in connection.execute(untold.returning(_D.alert_id, _D.channel))}


def _hold(connection: sa.Connection, worker_id: UUID, until: Any, *which: sa.ColumnElement[bool]) -> None:
    about = sa.select(alerts.c.id).where(alerts.c.worker_id == worker_id, alerts.c.kind.in_(list(SAID)))
    held = sa.update(deliveries).where(_D.alert_id.in_(about), *_WAITS, *which)
    connection.execute(held.values(next_attempt_at=until))


def _set(connection: sa.Connection, worker_id: UUID, condition: sa.ColumnElement[bool], **values: Any) -> bool:
    changed = sa.update(workers).where(_C.id == worker_id, condition)
    return connection.execute(changed.values(updated_at=_NOW, **values)).rowcount > 0
