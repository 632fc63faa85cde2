"""Services as their owners left them, before a change of ours."""

from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from skyctl.domain.engine import Document
from skyctl.store.tables import owner_specs

_C = owner_specs.c
_NOW = sa.func.skyctl_now()


class OwnerSpec(NamedTuple):
    """A service by the swarm's id, its specification as its owner left it, the one that he had before that, and the
    nodes that it was kept off by us."""

    swarm_service_id: str
    spec: Document
    former: Document | None
    excluded: Collection[str]


def get(connection: sa.Connection, swarm_service_id: str) -> OwnerSpec | None:
    """Return what is kept of a service; None where we never changed it."""
    row = connection.execute(_select().where(_C.swarm_service_id == swarm_service_id)).first()
    return OwnerSpec(*row) if row else None


def keep(connection: sa.Connection, owners: OwnerSpec) -> None:
    """Keep what an owner has of a service, which is about to be changed by us."""
    values = {**owners._asdict(), "excluded": sorted(owners.excluded), "changed_at": _NOW}
    kept = insert(owner_specs).values(values)
    connection.execute(kept.on_conflict_do_update(index_elements=[_C.swarm_service_id], set_=values))


def changed(connection: sa.Connection) -> list[OwnerSpec]:
    """Return the services in which something of ours is."""
    rows = connection.execute(_select().where(_C.changed_at.is_not(None)).order_by(_C.swarm_service_id))
    return [OwnerSpec(*row) for row in rows]


def note_given_back(connection: sa.Connection, swarm_service_id: str) -> None:
    """Note that nothing of ours is in a service any more."""
    update = sa.update(owner_specs).where(_C.swarm_service_id == swarm_service_id)
    connection.execute(update.values(changed_at=None, excluded=[]))


def ids(connection: sa.Connection) -> set[str]:
    """Return the services of which something is kept."""
    return set(connection.execute(sa.select(_C.swarm_service_id)).scalars())


def forget(connection: sa.Connection, swarm_service_id: str) -> None:
    """Forget a service that is gone."""
    connection.execute(sa.delete(owner_specs).where(_C.swarm_service_id == swarm_service_id))


def _select() -> sa.Select[Any]:
    return sa.select(_C.swarm_service_id, _C.spec, _C.former, _C.excluded)
