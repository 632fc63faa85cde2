"""The links by which install scripts are fetched: hashes and times, never a secret."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.store.tables import install_links, workers


class Link(NamedTuple):
    """A link as it is stored: whose script it gives, and whether it still does; `anew`: for a host that takes the
    place of the one that joined."""

    worker_id: UUID
    api_url: str
    insecure: bool
    anew: bool
    made_by: str
    expires_at: datetime
    used_at: datetime | None = None


def insert(connection: sa.Connection, secret_hash: str, link: Link) -> None:
    """Store a link."""
    connection.execute(sa.insert(install_links).values(secret_hash=secret_hash, **link._asdict()))


def get(connection: sa.Connection, secret_hash: str) -> Link | None:
    """The link of a secret, nobody else's to use until the end; None where there is none, or its worker was removed."""
    c = install_links.c
    query = sa.select(*(c[name] for name in Link._fields)).where(c.secret_hash == secret_hash)
    row = connection.execute(query.with_for_update()).one_or_none()
    return Link(*row) if row else None


def use(connection: sa.Connection, secret_hash: str) -> None:
    """Note that a link was used."""
    used = sa.update(install_links).where(install_links.c.secret_hash == secret_hash)
    connection.execute(used.values(used_at=sa.func.skyctl_now()))


def withdraw(connection: sa.Connection, worker_id: UUID) -> None:
    """Withdraw every link that was made for a worker so far."""
    unused = (install_links.c.worker_id == worker_id, install_links.c.used_at.is_(None))
    connection.execute(sa.delete(install_links).where(*unused))


def renew(connection: sa.Connection, worker_id: UUID, token_hash: str, expires_at: datetime) -> None:
    """Replace the token of an invitation: from now on, the invited host registers by this one."""
    renewed = sa.update(workers).where(workers.c.id == worker_id)
    connection.execute(
        renewed.values(auth_token_hash=token_hash, auth_token_expires_at=expires_at, updated_at=sa.func.skyctl_now())
    )
