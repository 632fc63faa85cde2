"""What the monitors leave in the database about themselves."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from skyctl.store.tables import monitor_leases


def note_pass(connection: sa.Connection, holder: str, lease: timedelta) -> None:
    """Note that a monitor looked at every worker."""
    connection.execute(
        sa.text("""
        INSERT INTO monitor_leases AS l (name, holder, expires_at, last_pass_at)
        VALUES ('monitor', :holder, now() + :lease, now())
        ON CONFLICT (name) DO UPDATE
        SET holder = excluded.holder, expires_at = excluded.expires_at, last_pass_at = excluded.last_pass_at
        """),
        {"holder": holder, "lease": lease},
    )


def last_pass_at(connection: sa.Connection) -> datetime | None:
    """When a monitor last looked at every worker."""
    latest: datetime | None = connection.execute(sa.select(sa.func.max(monitor_leases.c.last_pass_at))).scalar_one()
    return latest
