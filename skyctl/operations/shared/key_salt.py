"""The salt of the installation, from which the key of workers' tokens is derived."""

from collections.abc import Callable

from skyctl.domain.errors import SchemaMissing
from skyctl.store import installation
from skyctl.store.db import Database


def reader(db: Database) -> Callable[[], str]:
    """Return a function that returns the salt of a database, read when it is called."""

    def read() -> str:
        with db.beside() as tx:
            salt = installation.worker_key_salt(tx)
        if salt is None:
            raise SchemaMissing("the row of skyctl_installation is gone", "run `skyctl db init`")
        return salt

    return read
