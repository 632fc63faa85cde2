"""The tokens of the API: hashes, roles and times, never a secret."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as _insert

from skyctl.domain.api_tokens import ApiToken, Role
from skyctl.store.tables import api_tokens

_c = api_tokens.c
_NOW = sa.func.skyctl_now()
_KNOWN = [column for column in _c if column is not _c.token_hash]


def insert(connection: sa.Connection, token_hash: str, made: ApiToken) -> bool:
    """Store a token, unless one that is not revoked has its name; tell whether it was."""
    values = {"name": made.name, "role": made.role.value, "made_by": made.made_by, "expires_at": made.expires_at}
    statement = _insert(api_tokens).values(id=made.id, token_hash=token_hash, made_at=made.made_at, **values)
    unless_named = statement.on_conflict_do_nothing(index_elements=[_c.name], index_where=_c.revoked_at.is_(None))
    return connection.execute(unless_named.returning(_c.id)).one_or_none() is not None


def by_hash(connection: sa.Connection, token_hash: str) -> ApiToken | None:
    """The token of a SHA-256; None where there is none."""
    row = connection.execute(sa.select(*_KNOWN).where(_c.token_hash == token_hash)).one_or_none()
    return _read(row) if row else None


def everything(connection: sa.Connection) -> list[ApiToken]:
    """All tokens, also those that are revoked or have expired, by name and age."""
    return [_read(row) for row in connection.execute(sa.select(*_KNOWN).order_by(_c.name, _c.made_at, _c.id))]


def revoke(connection: sa.Connection, token_id: UUID, by: str) -> bool:
    """Revoke a token; tell whether it was not revoked before."""
    statement = sa.update(api_tokens).where(_c.id == token_id, _c.revoked_at.is_(None))
    revoked = statement.values(revoked_at=_NOW, revoked_by=by).returning(_c.id)
    return connection.execute(revoked).one_or_none() is not None


def note_use(connection: sa.Connection, token_id: UUID, address: str | None) -> None:
    """Note that a token was used, and from where, unless somebody else does at this moment."""
    free = sa.select(_c.id).where(_c.id == token_id).with_for_update(skip_locked=True).scalar_subquery()
    connection.execute(sa.update(api_tokens).where(_c.id == free).values(last_used_at=_NOW, last_used_from=address))


def _read(row: Any) -> ApiToken:
    address = None if row.last_used_from is None else str(row.last_used_from)
    return ApiToken(**{**row._mapping, "role": Role(row.role), "last_used_from": address})
