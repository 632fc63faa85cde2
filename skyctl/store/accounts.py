"""Users, as far as skyctl asks about them."""

from uuid import UUID

import sqlalchemy as sa

from skyctl.store.tables import users


def email_and_role(connection: sa.Connection, user_id: UUID) -> tuple[str, str] | None:
    """The e-mail and the role of a user; None where there is no such user."""
    row = connection.execute(sa.select(users.c.email, users.c.role).where(users.c.id == user_id)).one_or_none()
    return (row.email, row.role) if row else None
