"""What is stored of workers' tokens: hashes and times, never a token."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from skyctl.store.tables import workers
from skyctl.trust import Credentials, IssuedToken


def get(connection: sa.Connection, worker_id: UUID, *, lock: bool = False) -> Credentials | None:
    """The credentials of a worker, on request nobody else's to change until the end; None where there is no such worker."""
    c = workers.c
    query = sa.select(
        c.auth_token_hash, c.auth_token_expires_at, c.next_token_hash, c.next_token_issued_at, c.previous_token_hash,
        c.token_revoked_at, c.token_revoked_reason,
    ).where(c.id == worker_id)  # fmt: skip
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        return None
    waits = row.next_token_hash is not None and row.next_token_issued_at is not None
    return Credentials(
        token_hash=row.auth_token_hash, expires_at=row.auth_token_expires_at,
        next_token=IssuedToken(row.next_token_hash, row.next_token_issued_at) if waits else None,
        previous_hash=row.previous_token_hash, revoked_at=row.token_revoked_at, revoked_reason=row.token_revoked_reason,
    )  # fmt: skip


def set_next(connection: sa.Connection, worker_id: UUID, token: IssuedToken) -> None:
    """Let a token wait to be handed over, in place of one that may wait already."""
    values = {"next_token_hash": token.token_hash, "next_token_issued_at": token.issued_at}
    connection.execute(sa.update(workers).where(workers.c.id == worker_id).values(values))


def promote(connection: sa.Connection, worker_id: UUID, expires_at: datetime) -> None:
    """Let the token that was handed over be the only one that is good; the one before stays known."""
    values = {
        "previous_token_hash": workers.c.auth_token_hash,
        "auth_token_hash": workers.c.next_token_hash,
        "auth_token_issued_at": workers.c.next_token_issued_at,
        "auth_token_expires_at": expires_at,
        "next_token_hash": None,
        "next_token_issued_at": None,
    }
    connection.execute(sa.update(workers).where(workers.c.id == worker_id).values(values))
