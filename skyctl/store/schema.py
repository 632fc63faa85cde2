"""The schema in the database: apply `schema.sql`, and see what a database has of it."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from skyctl.store import tables

UPGRADE_LOCK = 7_392_441
_PANELS = (
    *("users", "organizations", "organization_members", "activity_logs"),
    *("container_workers", "container_services", "container_deployments"),
)
_MAKES = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<made>\w+)"
    r"|CREATE (?:UNIQUE )?INDEX IF NOT EXISTS (?P<index>\w+)"
    r"|ALTER TABLE (?P<of>\w+) ADD COLUMN IF NOT EXISTS (?P<column>\w+)"
    r"|CREATE OR REPLACE (?P<kind>FUNCTION|TRIGGER) (?P<replaced>\w+)"
)
_PRESENT = sa.text("""
    SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace
    UNION ALL SELECT relname || '.' || attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT attisdropped
    UNION ALL SELECT 'FUNCTION ' || proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
    UNION ALL SELECT 'TRIGGER ' || tgname FROM pg_trigger JOIN pg_class ON tgrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace
""")
_OF_OTHERS = sa.text("""
    SELECT relname, pg_get_userbyid(relowner), current_user FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND relname = ANY(:tables)
          AND NOT pg_has_role(current_user, relowner, 'USAGE')
    ORDER BY relname LIMIT 1
""")
_GIVE = sa.text("""
    WITH panel AS (
        SELECT relowner AS role FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relname = 'container_workers'
              AND pg_has_role(current_user, relowner, 'MEMBER'))
    SELECT format('ALTER TABLE %s OWNER TO %s', pg_class.oid::regclass, panel.role::regrole) FROM pg_class, panel
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND relname = ANY(:tables)
          AND relowner <> panel.role AND pg_has_role(current_user, relowner, 'USAGE')
    UNION ALL SELECT format('ALTER FUNCTION %s OWNER TO %s', pg_proc.oid::regprocedure, panel.role::regrole)
    FROM pg_proc, panel
    WHERE pronamespace = current_schema()::regnamespace AND starts_with(proname, 'skyctl_')
          AND proowner <> panel.role AND pg_has_role(current_user, proowner, 'USAGE')
""")
_HOLDER = sa.text("""
    SELECT pid, coalesce(application_name, ''), coalesce(usename, ''), clock_timestamp() - xact_start
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
          AND relation IN (SELECT oid FROM pg_class
                           WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(:tables))
    ORDER BY xact_start LIMIT 1
""")


def begin(connection: sa.Connection) -> None:
    """Begin to change the schema: whoever else does waits for the end of this transaction, and no statement of it has a
    limit of time."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql("SET LOCAL client_min_messages = warning")


def needed(connection: sa.Connection, statements: str) -> Sequence[str]:
    """Return those statements of `schema.sql` that the database needs: a lock is taken for nothing that is there.

    In a database that has all tables and columns of this version that is what makes what else is missing, and what
    fills in rows.
    """
    is_current = (version(connection) or 0) >= tables.SCHEMA_VERSION and not missing(connection)
    present = {str(name) for (name,) in connection.execute(_PRESENT)}
    return [statement for statement in _split(statements) if _is_needed(statement, present, is_current=is_current)]


def changes(statement: str) -> bool:
    """Tell whether a statement changes what there is, not only what it holds."""
    return not statement.startswith("INSERT")


def run(connection: sa.Connection, statements: Iterable[str]) -> None:
    """Run statements in this transaction."""
    for statement in statements:
        connection.exec_driver_sql(statement)


def _split(statements: str) -> Iterator[str]:
    """The statements of a file in which each ends with its line, without comments."""
    lines: list[str] = []
    for line in statements.splitlines():
        if line.startswith("--") or not (line or lines):
            continue
        lines.append(line)
        statement = "\n".join(lines)
        if line.endswith(";") and statement.count("$$") % 2 == 0:
            yield statement
            lines.clear()


def _is_needed(statement: str, present: Collection[str], *, is_current: bool) -> bool:
    makes = _MAKES.match(statement)
    if makes is None:
        return not (is_current and changes(statement))
    if makes["kind"]:
        return not (is_current and f"{makes['kind']} {makes['replaced']}" in present)
    name = f"{makes['of']}.{makes['column']}" if makes["of"] else makes["made"] or makes["index"]
    return name not in present


class Others(NamedTuple):
    """A table of another role than the present one, which may not change it."""

    table: str
    owner: str
    ours: str


def of_others(connection: sa.Connection) -> Others | None:
    """Return the first table that the present role may not change; None where it may change all that are there."""
    row = connection.execute(_OF_OTHERS, {"tables": list(tables.metadata.tables)}).first()
    return Others(*row) if row else None


def give_to_owner(connection: sa.Connection) -> None:
    """Give what is ours beside the panel's tables to the owner of these, if the present role may: the panel writes into
    it, as by the trigger that notes a worker's removal."""
    ours = [name for name in tables.metadata.tables if name not in _PANELS]
    for (statement,) in connection.execute(_GIVE, {"tables": ours}).all():
        connection.exec_driver_sql(statement)


class Holder(NamedTuple):
    """A process of PostgreSQL that holds a lock on one of our tables, and for how long it has been in its
    transaction."""

    pid: int
    program: str
    role: str
    since: timedelta | None


def holder(connection: sa.Connection) -> Holder | None:
    """Return who has held a lock on one of our tables for longest; None where nobody does."""
    row = connection.execute(_HOLDER, {"tables": list(tables.metadata.tables)}).first()
    return Holder(*row) if row else None


def version(connection: sa.Connection) -> int | None:
    """Return the newest version of the schema that was applied; None where none was."""
    if not sa.inspect(connection).has_table(tables.schema_versions.name):
        return None
    newest: int | None = connection.execute(sa.select(sa.func.max(tables.schema_versions.c.version))).scalar_one()
    return newest


def applied_at(connection: sa.Connection, of_version: int) -> datetime | None:
    """Return when the database got a version of the schema; None where it was never applied."""
    query = sa.select(tables.schema_versions.c.applied_at).where(tables.schema_versions.c.version == of_version)
    return connection.execute(query).scalar_one_or_none()


def missing(connection: sa.Connection) -> Sequence[str]:
    """Return the tables and columns that the database lacks, as `table` or `table.column`."""
    catalog = sa.text(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    )
    present = {(table, column) for table, column in connection.execute(catalog)}
    present_tables = {table for table, _ in present}
    absent = []
    for table in tables.metadata.sorted_tables:
        if table.name not in present_tables:
            absent.append(table.name)
        else:
            absent += [f"{table.name}.{column.name}" for column in table.c if (table.name, column.name) not in present]
    return absent
