"""The one row of the installation: its id, the salt of its workers' key, and from when administrators' tokens count."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from skyctl.store.tables import installations

_c = installations.c


def installation_id(connection: sa.Connection) -> UUID | None:
    """Return the id that this database was given when the schema was first applied; None where its row is gone."""
    return connection.execute(sa.select(_c.id)).scalar_one_or_none()


def worker_key_salt(connection: sa.Connection) -> str | None:
    """Return the salt of the key that signs workers' tokens; None where the row is gone."""
    return connection.execute(sa.select(_c.worker_key_salt)).scalar_one_or_none()


def admin_tokens_from(connection: sa.Connection) -> datetime | None:
    """Return since when an administrator's token must have been issued; None where nobody ever ended any."""
    return connection.execute(sa.select(_c.admin_tokens_from)).scalar_one_or_none()


def end_admin_tokens(connection: sa.Connection, at: datetime) -> None:
    """Refuse every administrator's token that was issued before a moment; an earlier one takes nothing back."""
    latest = sa.func.greatest(_c.admin_tokens_from, at)
    connection.execute(sa.update(installations).values(admin_tokens_from=latest))
