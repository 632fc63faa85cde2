"""The stored facts of workers' tokens: hashes and times, never a token."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.cluster import Worker
from skyctl.domain.states import WorkerStatus
from skyctl.domain.tokens import Claimant, Credentials, HostIdentity, IssuedToken
from skyctl.store.db import HeartbeatConnection
from skyctl.store.rows import COLUMNS, STATUS, among, on_pages, read
from skyctl.store.tables import workers

TAKES_TOKENS = "takesTokens"
BEATING = (WorkerStatus.ACTIVE, WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING)

_c = workers.c
TAKES_ANOTHER = sa.func.coalesce(_c.metadata[TAKES_TOKENS] == sa.text("'true'::jsonb"), False)

_STORED: LiteralString = """
    WITH clock AS MATERIALIZED (SELECT now()), stored AS (
        SELECT w.id::text AS id, d.hash
        FROM unnest(%(ids)s::uuid[], %(hashes)s::text[]) AS d (id, hash)
        JOIN container_workers AS w ON w.id = d.id AND (w.auth_token_hash = d.hash OR w.next_token_hash = d.hash)
    )
    SELECT now, id, hash FROM clock LEFT JOIN stored ON true
"""


async def stored(connection: HeartbeatConnection, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of these ids of workers with hashes of tokens, at least one, those that are stored; whether such a token is still
    good, the write of a heartbeat says. Raises DatabaseUnavailable."""
    ids, hashes = map(list, zip(*keys, strict=True))
    rows = await connection.fetch(_STORED, {"ids": ids, "hashes": hashes})
    return {(worker_id, token_hash) for _, worker_id, token_hash in rows if worker_id is not None}


def get(connection: sa.Connection, worker_id: UUID, *, lock: bool = False) -> Credentials | None:
    """The credentials of a worker, on request nobody else's to change until the end; None where there is no such
    worker."""
    query = sa.select(workers, TAKES_ANOTHER.label("takes_tokens")).where(_c.id == worker_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return credentials(row) if row else None


def credentials(row: Any) -> Credentials:
    """The credentials of a worker's row, with `takes_tokens`."""
    waits = row.next_token_hash is not None and row.next_token_issued_at is not None
    return Credentials(
        token_hash=row.auth_token_hash,
        expires_at=row.auth_token_expires_at,
        next_token=IssuedToken(row.next_token_hash, row.next_token_issued_at, row.next_token_key or "")
        if waits
        else None,
        invitation_hash=row.invitation_hash,
        invitation_expires_at=row.invitation_expires_at,
        revoked_at=row.token_revoked_at,
        revoked_reason=row.token_revoked_reason,
        holder=_holder(row),
        claimants=_claimants(row.rivals),
        takes_tokens=row.takes_tokens,
        last_heartbeat_at=row.last_heartbeat_at,
        bound_at=row.bound_at,
    )


def set_next(connection: sa.Connection, worker_id: UUID, token: IssuedToken) -> None:
    """Store a token that waits to be handed over, in place of one that may wait already."""
    _set(
        connection,
        worker_id,
        next_token_hash=token.token_hash,
        next_token_issued_at=token.issued_at,
        next_token_key=token.key_id,
    )


def promote(connection: sa.Connection, worker_ids: Iterable[UUID], lifetime: timedelta) -> None:
    """Make the token that was handed over the only one that is good, of each of these workers."""
    statement = sa.update(workers).where(among(_c.id, worker_ids))
    connection.execute(
        statement.values(
            auth_token_hash=_c.next_token_hash,
            auth_token_issued_at=_c.next_token_issued_at,
            auth_token_key=_c.next_token_key,
            auth_token_expires_at=_c.next_token_issued_at + lifetime,
            updated_at=sa.func.skyctl_now(),
            **_NO_NEXT,
        )
    )


def invite(connection: sa.Connection, worker_id: UUID, token_hash: str, expires_at: datetime) -> None:
    """Invite a host to join as an existing worker with this token, until then."""
    _set(connection, worker_id, invitation_hash=token_hash, invitation_expires_at=expires_at)


def accept(connection: sa.Connection, worker_id: UUID, token: IssuedToken, expires_at: datetime | None) -> None:
    """Make the token of an invitation the only one that is good, whatever machine held the one before."""
    _set(
        connection,
        worker_id,
        auth_token_hash=token.token_hash,
        auth_token_issued_at=token.issued_at,
        auth_token_key=token.key_id,
        auth_token_expires_at=expires_at,
        invitation_hash=None,
        invitation_expires_at=None,
        token_revoked_at=None,
        token_revoked_reason=None,
        machine_id=None,
        boot_id=None,
        instance_id=None,
        bound_at=None,
        rivals=sa.null(),
        **_NO_NEXT,
    )


def note_claimants(connection: sa.Connection, worker_id: UUID, claimants: Mapping[str, Claimant]) -> None:
    """Note who else wants to register as the machine, by their places."""
    document = {
        place: {"since": claimant.since.isoformat(), "isTold": claimant.is_told}
        for place, claimant in claimants.items()
    }
    _set(connection, worker_id, rivals=document)


def revoke(connection: sa.Connection, worker_id: UUID, reason: str | None) -> None:
    """Revoke every token of the worker, those that wait and an invitation too."""
    _set(
        connection,
        worker_id,
        auth_token_hash="",
        token_revoked_at=sa.func.skyctl_now(),
        token_revoked_reason=reason,
        invitation_hash=None,
        invitation_expires_at=None,
        **_NO_NEXT,
    )


def due(
    connection: sa.Connection, age: timedelta | None, signing_key: str, limit: int, pages: range | None = None
) -> Sequence[Worker]:
    """Workers that beat and whose token is older than that, if any, or was signed by another key than this one, or by
    one that nobody noted; of those on these pages of the table, or of all."""
    old = (
        sa.false()
        if age is None
        else sa.func.coalesce(_c.auth_token_issued_at, _c.created_at) < sa.func.skyctl_now() - age
    )
    foreign = sa.func.coalesce(_c.auth_token_key != signing_key, sa.true())
    query = sa.select(*COLUMNS).where(
        *([] if pages is None else on_pages(pages)),
        old | foreign,
        _c.next_token_hash.is_(None),
        _c.token_revoked_at.is_(None),
        STATUS.in_(BEATING),
        TAKES_ANOTHER,
    )
    return [
        read(row) for row in connection.execute(query.order_by(_c.id).limit(limit).with_for_update(skip_locked=True))
    ]


def without_successor(connection: sa.Connection) -> int:
    """The number of workers that registered with a token that is good, and cannot take another one by themselves."""
    there = (_c.hostname != "", _c.auth_token_hash != "", sa.not_(TAKES_ANOTHER))
    return connection.execute(sa.select(sa.func.count()).select_from(workers).where(*there)).scalar_one()


_NO_NEXT: dict[str, Any] = {"next_token_hash": None, "next_token_issued_at": None, "next_token_key": None}


def _set(connection: sa.Connection, worker_id: UUID, **values: Any) -> None:
    connection.execute(sa.update(workers).where(_c.id == worker_id).values(updated_at=sa.func.skyctl_now(), **values))


def _holder(row: Any) -> HostIdentity:
    identity = (row.machine_id or "", row.boot_id or "", row.instance_id or "")
    return HostIdentity(*identity, row.hostname, str(row.ip_address))


def _claimants(document: Any) -> dict[str, Claimant]:
    entries = document or {}
    return {
        place: Claimant(datetime.fromisoformat(entry["since"]), is_told=entry["isTold"])
        for place, entry in entries.items()
    }
