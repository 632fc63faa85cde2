"""The schema of the database: set it up, and see whether it is complete."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from uuid import UUID

from skyctl.operations.agents import upgrades
from skyctl.operations.shared.context import Context
from skyctl.store import db, drains, installation, schema, workers
from skyctl.store.tables import SCHEMA_VERSION

UPGRADE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The state of the schema in a database.

    `version`: the newest that was applied (None: never); `expected`: the one that this skyctl needs; `missing`: tables
    and columns; `installation_id`: which installation this is, where the schema is complete.
    """

    version: int | None
    expected: int
    missing: Sequence[str]
    installation_id: UUID | None

    @property
    def complete(self) -> bool:
        """Tell whether this skyctl can work with the database."""
        return not self.missing and not self.pending_upgrade

    @property
    def pending_upgrade(self) -> bool:
        """Tell whether `skyctl db init` would bring a newer version."""
        return (self.version or 0) < self.expected


def initialize(context: Context) -> SchemaState:
    """Apply `schema.sql`. What is there already stays as it is, except offers of an agent of another version, which are
    withdrawn."""
    with context.db.transaction(limit_seconds=UPGRADE_SECONDS) as tx:
        schema.apply(tx, _schema_file().read_text(encoding="utf-8"))
        drains.hold_heartbeats(tx)
        workers.withdraw_other_agents(tx, upgrades.release().sha256)
    return check(context)


def check(context: Context, *, takes_writes: bool = False) -> SchemaState:
    """Return what the database has of the schema. Raises DatabaseUnavailable, also where it takes no writes although it
    is to."""
    with context.db.transaction() as tx:
        if takes_writes:
            db.require_writes(tx)
        missing = schema.missing(tx)
        installation_id = None if missing else installation.installation_id(tx)
        return SchemaState(schema.version(tx), SCHEMA_VERSION, missing, installation_id)


def _schema_file() -> Path:
    package = Path(str(files("skyctl")))
    installed = package / "schema.sql"
    return installed if installed.exists() else package.parent / "schema.sql"
