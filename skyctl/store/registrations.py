"""Registrations of hosts in the database: what is known of many workers, and what they say, in one statement each."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INET, JSONB

from skyctl.documents import http
from skyctl.domain.cluster import Registration, Worker
from skyctl.domain.tokens import Credentials, HostIdentity, IssuedToken
from skyctl.rules import names
from skyctl.store import node_claims, tokens
from skyctl.store.rows import COLUMNS, among, read
from skyctl.store.tables import workers

_OF_THE_HOST = [
    "dockerVersion",
    "engine",
    "engineTrouble",
    "containerCountKnown",
    "nixVersion",
    "swarmNodeId",
    "clockOffsetSeconds",
    "agentSha256",
    "agentUpgradeFailed",
    "takesTokens",
    "releaseKey",
    "plainHttp",
    names.REPORTED,
    "claimedRegion",
    "claimedPool",
]
_CLAIMED = {"region": "claimedRegion", "pool": "claimedPool"}

_c = workers.c
_TIME = sa.DateTime(timezone=True)
_SAID: Any = (
    sa.func.jsonb_to_recordset(sa.bindparam("said", type_=JSONB))
    .table_valued(
        sa.column("id", sa.UUID),
        sa.column("name", sa.Text),
        sa.column("hostname", sa.Text),
        sa.column("ip_address", INET),
        sa.column("capacity", JSONB),
        sa.column("metadata", JSONB),
        sa.column("node", sa.Text),
        sa.column("came_from", INET),
        sa.column("machine_id", sa.Text),
        sa.column("boot_id", sa.Text),
        sa.column("instance_id", sa.Text),
        sa.column("expires_at", _TIME),
        sa.column("key_id", sa.Text),
        sa.column("next_hash", sa.Text),
        sa.column("next_issued_at", _TIME),
        sa.column("next_key", sa.Text),
    )
    .render_derived(name="said", with_types=True)
)


class Known(NamedTuple):
    """What the database holds of a worker that registers."""

    worker: Worker
    credentials: Credentials


class Admission(NamedTuple):
    """A host that is let in as a worker: the worker's name, what the host says, the machine to which its token is
    bound, until when that is good and by which key it was signed, and the one that shall replace it, if any."""

    worker_id: UUID
    name: str
    registration: Registration
    host: HostIdentity
    expires_at: datetime | None
    key_id: str
    next_token: IssuedToken | None


def known(connection: sa.Connection, worker_ids: Iterable[UUID], *, lock: bool = False) -> dict[UUID, Known]:
    """Return what is known of workers, on request nobody else's to change until the end; those that somebody else is
    changing right now are left out then, so that whoever holds many waits for none."""
    query = sa.select(workers, tokens.TAKES_ANOTHER.label("takes_tokens")).where(among(_c.id, worker_ids))
    rows = connection.execute(query.with_for_update(skip_locked=True, key_share=True) if lock else query)
    return {row.id: Known(read(row), tokens.credentials(row)) for row in rows}


def store(connection: sa.Connection, admissions: Sequence[Admission]) -> dict[UUID, Worker]:
    """Store what hosts say of themselves, at most once a worker, and return the workers. Of what administrators set it
    changes nothing; of identity, what a host does not say stays as it was."""
    rows = connection.execute(_storing(), {"said": [_document(admission) for admission in admissions]})
    return {row.id: read(row) for row in rows}


@cache
def _storing() -> sa.UpdateBase:
    is_new = _SAID.c.next_hash.is_not(None)
    values: dict[str, Any] = {
        "name": _SAID.c.name,
        "hostname": _SAID.c.hostname,
        "ip_address": _SAID.c.ip_address,
        "capacity": _SAID.c.capacity,
        "metadata": _known_metadata().op("||")(_SAID.c.metadata),
        "auth_token_expires_at": _SAID.c.expires_at,
        "auth_token_key": _SAID.c.key_id,
        "next_token_hash": sa.case((is_new, _SAID.c.next_hash), else_=_c.next_token_hash),
        "next_token_issued_at": sa.case((is_new, _SAID.c.next_issued_at), else_=_c.next_token_issued_at),
        "next_token_key": sa.case((is_new, _SAID.c.next_key), else_=_c.next_token_key),
        "bound_at": sa.func.skyctl_now(),
        "rivals": sa.null(),
        "updated_at": sa.func.skyctl_now(),
    }
    values |= {
        name: sa.func.coalesce(sa.func.nullif(_SAID.c[name], ""), _c[name])
        for name in ("machine_id", "boot_id", "instance_id")
    }
    values |= node_claims.said(_SAID.c.node, _SAID.c.hostname, _SAID.c.came_from)
    return sa.update(workers).where(_c.id == _SAID.c.id).values(**values).returning(*COLUMNS)


def _document(admission: Admission) -> dict[str, Any]:
    said, host, following = admission.registration, admission.host, admission.next_token
    node = said.metadata.get("swarmNodeId")
    return {
        "id": str(admission.worker_id),
        "name": admission.name,
        "hostname": said.hostname,
        "ip_address": said.ip_address,
        "capacity": http.capacity_document(said.capacity),
        "metadata": {_CLAIMED.get(key, key): value for key, value in said.metadata.items()},
        "node": node if isinstance(node, str) else None,
        "came_from": said.came_from,
        "machine_id": host.machine_id,
        "boot_id": host.boot_id,
        "instance_id": host.instance_id,
        "expires_at": admission.expires_at and admission.expires_at.isoformat(),
        "key_id": admission.key_id,
        "next_hash": following and following.token_hash,
        "next_issued_at": following and following.issued_at.isoformat(),
        "next_key": following and following.key_id,
    }


def _known_metadata() -> sa.ColumnElement[Any]:
    """The stored metadata of a worker, without what only the host can say and may no longer be true."""
    kept = sa.func.coalesce(_c.metadata, sa.text("'{}'::jsonb"))
    return kept.op("-")(sa.cast(_OF_THE_HOST, sa.ARRAY(sa.Text)))
