"""The public key of releases that the installation's hosts pin, as `serve` puts it into the scripts that it makes."""

import sqlalchemy as sa

from skyctl.store.tables import installations


def published(connection: sa.Connection) -> str | None:
    """Return the key that was published; None where none was."""
    found: str | None = connection.execute(sa.select(installations.c.release_key)).scalar_one_or_none()
    return found


def publish(connection: sa.Connection, key: str) -> None:
    """Publish a key, in place of the one before."""
    connection.execute(sa.update(installations).values(release_key=key))
