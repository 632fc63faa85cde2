"""The schema of the database: set it up, and see whether it is complete."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from uuid import UUID

from skyctl.domain.errors import DatabaseBusy, Refused
from skyctl.domain.text import printable, span
from skyctl.operations.agents import upgrades
from skyctl.operations.shared.context import Context
from skyctl.store import db, drains, installation, schema, workers
from skyctl.store.tables import SCHEMA_VERSION

UPGRADE_SECONDS = 3600.0
ATTEMPTS, PAUSE_SECONDS = 10, 1.0  # in the pauses, whoever waited behind us goes on


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
    """Apply what the database lacks of `schema.sql`. What is there already stays as it is, except offers of an agent of
    another version, which are withdrawn.

    Whoever reads and writes meanwhile waits for a second at most for each table that is changed. Raises DatabaseBusy,
    which names who else holds one, where that takes too long; Refused where the tables are another role's.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _apply(context)
            break
        except DatabaseBusy as busy:
            if attempt == ATTEMPTS:
                raise _held(context, busy) from busy
            time.sleep(PAUSE_SECONDS)
    return check(context)


def _apply(context: Context) -> None:
    with context.db.transaction(limit_seconds=UPGRADE_SECONDS) as tx:
        schema.begin(tx)
        db.limit_lock_waits(tx)
        needed = schema.needed(tx, _schema_file().read_text(encoding="utf-8"))
        others = schema.of_others(tx) if any(map(schema.changes, needed)) else None
        if others:
            raise Refused(
                f"the database's schema is to be changed, and the table {others.table} belongs to the role "
                f"{others.owner}, not to {others.ours}",
                f"run `skyctl db init` as {others.owner}, or once, in psql: GRANT {others.owner} TO {others.ours}",
            )
        schema.run(tx, needed)
        schema.give_to_owner(tx)
        agent = upgrades.release().sha256
        if workers.others_are_offered(tx, agent):
            drains.hold_heartbeats(tx)
            workers.withdraw_other_agents(tx, agent)


def _held(context: Context, busy: DatabaseBusy) -> DatabaseBusy:
    """Return the error with who holds a table, where that can be told."""
    with context.db.transaction() as tx:
        holder = schema.holder(tx)
    if holder is None:
        return busy
    since = f", in a transaction for {span(holder.since)}" if holder.since else ""
    program = f" of {printable(holder.program)}" if holder.program else ""
    return DatabaseBusy(
        f"{context.db.address}: nothing was changed, since somebody holds a table that is to be: process {holder.pid}"
        f"{program}, role {printable(holder.role)}{since}",
        f"wait for its end and try again; or end it, in psql: SELECT pg_terminate_backend({holder.pid})",
    )


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
