"""Claims of swarm nodes in the database: said by hosts, confirmed or not, and what an administrator says of them."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.engine import NodeClaim
from skyctl.store.rows import CONFIRMED, among
from skyctl.store.tables import workers

TOLD_AGAIN = timedelta(days=1)  # of a worker that claims its own node in between

_NOW = sa.func.skyctl_now()
_C = workers.c
_CLAIM: sa.ColumnElement[str] = sa.func.coalesce(_C.swarm_node_id, _C.swarm_node_claim)
_UNCONFIRMED = CONFIRMED.is_not(sa.true())


def said(
    node_id: sa.ColumnElement[str], hostname: sa.ColumnElement[str], came_from: sa.ColumnElement[Any]
) -> dict[str, Any]:
    """Return the columns of registrations' claims, as an update takes them. A confirmed node stays confirmed where the
    same host says the same again from the same place; a host that says nothing, its engine being away, changes nothing.
    One that says that it has none (an empty text) has left its swarm, and is no node of it any more. Which node was
    confirmed last is kept: what runs there is to be moved off it whatever the host says by now."""
    is_said = sa.func.coalesce(node_id, "") != ""
    stays = node_id.is_(None) | sa.and_(
        _C.swarm_node_id == node_id, _C.hostname == hostname, _C.registered_from.is_not_distinct_from(came_from)
    )
    return {
        "swarm_node_claim": sa.case((node_id.is_(None), _C.swarm_node_claim), else_=sa.func.nullif(node_id, "")),
        "registered_from": sa.case((is_said, came_from), else_=_C.registered_from),
        "swarm_node_id": sa.case((stays, _C.swarm_node_id)),
        "swarm_node_trouble": sa.case((stays, _C.swarm_node_trouble)),
    }


def unconfirmed(connection: sa.Connection, *, only_new: bool) -> list[NodeClaim]:
    """Return the claims that do not count; only those that nobody has looked at yet, where asked."""
    query = sa.select(
        _C.id,
        _C.name,
        _CLAIM,
        _C.hostname,
        sa.func.host(_C.ip_address),
        sa.func.host(_C.registered_from),
        _C.swarm_node_allowed,
        _C.swarm_node_trouble,
        _C.swarm_node_refuted_at.is_not(None),
    ).where(
        _UNCONFIRMED,
        _CLAIM.is_not(None),
        *([_C.swarm_node_trouble.is_(None)] if only_new else []),
    )
    return [NodeClaim(*row) for row in connection.execute(query.order_by(_C.id))]


def holder(connection: sa.Connection, node_id: str) -> UUID | None:
    """Return the worker whose confirmed node this is."""
    held = sa.select(_C.id).where(CONFIRMED, _C.swarm_node_id == node_id)
    return connection.execute(held).scalar_one_or_none()


def holders(connection: sa.Connection, node_ids: Iterable[str]) -> dict[str, str]:
    """Return the names of the workers whose confirmed nodes these are, by the node."""
    held = (CONFIRMED, _C.swarm_node_id.in_(list(node_ids)))
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.swarm_node_id, _C.name).where(*held))}


def allowed(connection: sa.Connection, worker_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Return the nodes that an administrator says are these workers', by worker."""
    said_so = (among(_C.id, worker_ids), _C.swarm_node_allowed.is_not(None))
    return {row[0]: row[1] for row in connection.execute(sa.select(_C.id, _C.swarm_node_allowed).where(*said_so))}


def allow(connection: sa.Connection, worker_id: UUID, node_id: str) -> bool:
    """Note that an administrator says that a node is this worker's, and nobody else's any more; False where that stood
    already."""
    others = sa.update(workers).where(_C.swarm_node_allowed == node_id, _C.id != worker_id)
    connection.execute(others.values(swarm_node_allowed=None))
    mine = sa.update(workers).where(_C.id == worker_id, _C.swarm_node_allowed.is_distinct_from(node_id))
    said = mine.values(swarm_node_allowed=node_id, swarm_node_trouble=None, updated_at=_NOW)
    return connection.execute(said).rowcount > 0


def confirm(connection: sa.Connection, claim: NodeClaim) -> bool:
    """Note that the engine has shown a claim to be true; False where the host says something else by now. Whoever else
    had the node has it no longer. Heartbeats are held."""
    if connection.execute(sa.select(_C.id).where(*_still(claim)).with_for_update()).one_or_none() is None:
        return False
    others = sa.update(workers).where(_C.swarm_node_id == claim.node_id, _C.id != claim.worker_id)
    connection.execute(others.values(swarm_node_id=None, swarm_node_claim=_CLAIM, swarm_node_trouble=None))
    former = sa.update(workers).where(_C.swarm_node_confirmed == claim.node_id, _C.id != claim.worker_id)
    connection.execute(former.values(swarm_node_confirmed=None))
    is_other = _C.swarm_node_confirmed.is_distinct_from(claim.node_id)  # a new claim leaves no other node's id
    mine = sa.update(workers).where(_C.id == claim.worker_id)
    connection.execute(
        mine.values(
            swarm_node_id=claim.node_id,
            swarm_node_claim=claim.node_id,
            swarm_node_confirmed=claim.node_id,
            swarm_node_confirmed_at=_NOW,
            swarm_node_trouble=None,
            swarm_node_refuted_at=sa.case((_C.swarm_node_refuted_at + TOLD_AGAIN > _NOW, _C.swarm_node_refuted_at)),
            node_paused_at=sa.case((is_other, None), else_=_C.node_paused_at),
            updated_at=_NOW,
        )
    )
    return True


def refuse(connection: sa.Connection, troubles: Mapping[UUID, str], claims: Iterable[NodeClaim]) -> None:
    """Note why claims do not count. Heartbeats are held."""
    for claim in claims:
        why = sa.update(workers).where(*_still(claim))
        connection.execute(why.values(swarm_node_trouble=troubles[claim.worker_id], updated_at=_NOW))


def note_refuted(connection: sa.Connection, worker_ids: Iterable[UUID]) -> None:
    """Note that people were told of these workers' claims."""
    told = sa.update(workers).where(among(_C.id, list(worker_ids)))
    connection.execute(told.values(swarm_node_refuted_at=_NOW))


def _still(claim: NodeClaim) -> tuple[sa.ColumnElement[bool], ...]:
    """The worker of a claim, as long as it is the one that was judged."""
    return (
        _C.id == claim.worker_id,
        _UNCONFIRMED,
        _CLAIM.in_([claim.node_id]),
        _C.hostname == claim.hostname,
        _C.registered_from.is_not_distinct_from(sa.cast(claim.came_from, _C.registered_from.type)),
    )
