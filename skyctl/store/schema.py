"""The schema in the database: apply `schema.sql`, and see what a database has of it."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from skyctl.store import tables

UPGRADE_LOCK = 7_392_441


def apply(connection: sa.Connection, statements: str) -> None:
    """Run the whole of `schema.sql` in this transaction; another one that does so waits for its end."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql("SET LOCAL client_min_messages = warning")
    connection.exec_driver_sql(statements)


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
