"""What the driver of PostgreSQL raises, as our errors: the one place where that is done."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg
from sqlalchemy import exc

from skyctl.domain import errors
from skyctl.domain.errors import DatabaseRefused, DatabaseUnavailable, Refused, SchemaMissing, SkyctlError
from skyctl.domain.shortages import shortage
from skyctl.domain.text import without_secrets

CHECK_ADDRESS = "check SKYCTL_DATABASE_URL, and that PostgreSQL runs and accepts this user"
GO_TO_PRIMARY = (
    "let SKYCTL_DATABASE_URL lead to the primary, or name all servers: postgresql://USER@HOST1,HOST2/DATABASE; "
    "with ?target_session_attrs=any a standby can be read"
)
NO_OPTIONS = (
    "this pooler takes no `options`: take them out of SKYCTL_DATABASE_URL and PGOPTIONS (ALTER ROLE ... SET does the "
    "same), or go to PostgreSQL itself"
)
CHECK_SCHEMA = "run `skyctl db init` against this database"


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Have the errors of the block be ours, about the database of this address."""
    try:
        yield
    except exc.DBAPIError as error:
        raise _ours(error.orig, address) from error
    except exc.TimeoutError as error:
        raise DatabaseUnavailable(f"{address} is busy: no connection is free", "try again") from error
    except psycopg.Error as error:
        raise _ours(error, address) from error
    except (OSError, MemoryError, RuntimeError) as error:
        if reason := shortage(error):
            hint = "see what takes so much, or raise the limits of this process"
            raise DatabaseUnavailable(f"{address} cannot be asked: {reason}", hint) from error
        raise


def _ours(error: BaseException | None, address: str) -> SkyctlError:
    """Our error for the driver's: what cannot be reached, what is missing, what is taken, what was refused."""
    reason = without_secrets(_one_line(error))
    match error:
        case pg.UndefinedTable() | pg.UndefinedColumn() | pg.UndefinedFunction():
            return SchemaMissing(f"the schema of {address} is not complete: {reason}", CHECK_SCHEMA)
        case pg.InsufficientPrivilege():
            return SchemaMissing(f"{address}: {reason}", "grant the database user its rights on the tables")
        case pg.UniqueViolation():
            return Refused(f"already taken: {reason}", "remove or change the other one first")
        case pg.LockNotAvailable():
            return errors.DatabaseBusy(f"{address}: somebody else holds what is needed: {reason}", "try again")
        case pg.ReadOnlySqlTransaction():
            return DatabaseUnavailable(f"{address} takes no writes: {reason}", GO_TO_PRIMARY)
        case psycopg.OperationalError() if "session is read-only" in reason or "server is in hot standby" in reason:
            return DatabaseUnavailable(f"{address} takes no writes: {reason}", GO_TO_PRIMARY)
        case psycopg.OperationalError() if "unsupported startup parameter" in reason:
            return DatabaseUnavailable(f"{address}: {reason}", NO_OPTIONS)
        case pg.IdleInTransactionSessionTimeout() | pg.DeadlockDetected():
            return DatabaseUnavailable(f"{address} does not go on: {reason}", CHECK_ADDRESS)
        case psycopg.ProgrammingError() if error.sqlstate is None:
            return DatabaseUnavailable(f"{address}: {reason}", CHECK_ADDRESS)
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return DatabaseUnavailable(f"{address} does not answer: {reason}", CHECK_ADDRESS)
    return DatabaseRefused(f"the database refused the statement: {reason}", "see the log of PostgreSQL")


def _one_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
