"""The links by which install scripts are fetched: hashes and times, never a secret."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.store.tables import install_links, workers


class Link(NamedTuple):
    """A link as it is stored: whose script it gives, and whether it still does."""

    worker_id: UUID
    insecure: bool
    made_by: str
    expires_at: datetime
    used_at: datetime | None


def insert(
    connection: sa.Connection, secret_hash: str, worker_id: UUID, made_by: str, expires_at: datetime, *, insecure: bool
) -> None:
    """Store a link that nobody has used."""
    values = {"secret_hash": secret_hash, "worker_id": worker_id, "made_by": made_by, "expires_at": expires_at}
    connection.execute(sa.insert(install_links).values(**values, insecure=insecure))


def get(connection: sa.Connection, secret_hash: str) -> Link | None:
    """The link of a secret, nobody else's to use until the end; None where there is none, or its worker was removed."""
    c = install_links.c
    query = sa.select(c.worker_id, c.insecure, c.made_by, c.expires_at, c.used_at).where(c.secret_hash == secret_hash)
    row = connection.execute(query.with_for_update()).one_or_none()
    return Link(*row) if row else None


def use(connection: sa.Connection, secret_hash: str) -> None:
    """Note that a link was used."""
    used = sa.update(install_links).where(install_links.c.secret_hash == secret_hash)
    connection.execute(used.values(used_at=sa.func.skyctl_now()))


def renew(connection: sa.Connection, worker_id: UUID, token_hash: str, expires_at: datetime) -> None:
    """Let this be the token by which an invited host registers, in place of the one that its invitation had."""
    renewed = sa.update(workers).where(workers.c.id == worker_id)
    connection.execute(
        renewed.values(auth_token_hash=token_hash, auth_token_expires_at=expires_at, updated_at=sa.func.skyctl_now())
    )
