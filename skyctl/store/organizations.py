"""Users and organizations, as far as skyctl asks about them."""

from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from skyctl.domain.states import MigrationPolicy
from skyctl.domain.workloads import Organization
from skyctl.store.tables import organizations, users

POLICY_KEY = "containerMigrationPolicy"
_ORGANIZATION = (
    organizations.c.id,
    organizations.c.name,
    organizations.c.slug,
    sa.func.skyctl_migration_policy(organizations.c.settings).label("policy"),
)


def email_and_role(connection: sa.Connection, user_id: UUID) -> tuple[str, str] | None:
    """The e-mail and the role of a user; None where there is no such user."""
    row = connection.execute(sa.select(users.c.email, users.c.role).where(users.c.id == user_id)).one_or_none()
    return (row.email, row.role) if row else None


def matching_organizations(connection: sa.Connection, reference: str | None) -> list[Organization]:
    """The organizations of this id or slug, by slug; all of them without one."""
    query = sa.select(*_ORGANIZATION).order_by(organizations.c.slug)
    if reference is not None:
        named = sa.or_(organizations.c.slug == reference, sa.cast(organizations.c.id, sa.Text) == reference)
        query = query.where(named)
    return [_organization(row) for row in connection.execute(query)]


def needs_owner(connection: sa.Connection) -> bool:
    """Tell whether each organization must have an owner, as in the panel's database."""
    query = "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'organizations'::regclass AND attname = 'owner_id'"
    return bool(connection.execute(sa.text(query)).scalar_one())


def insert_organization(connection: sa.Connection, slug: str) -> Organization:
    """Make an organization without members."""
    values = {"id": uuid4(), "name": slug, "slug": slug}
    row = connection.execute(sa.insert(organizations).values(values).returning(*_ORGANIZATION)).one()
    return _organization(row)


def set_policy(connection: sa.Connection, organization_id: UUID, policy: MigrationPolicy) -> None:
    """Write down what an organization wants when a worker fails; its other settings stay."""
    kept = sa.func.coalesce(organizations.c.settings, sa.text("'{}'::jsonb"))
    merged = kept.op("||")(sa.cast({POLICY_KEY: policy.value}, organizations.c.settings.type))
    connection.execute(sa.update(organizations).where(organizations.c.id == organization_id).values(settings=merged))


def _organization(row: Any) -> Organization:
    return Organization(row.id, row.name, row.slug, MigrationPolicy(row.policy))
