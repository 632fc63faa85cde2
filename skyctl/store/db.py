"""The door to PostgreSQL: connections, transactions, LISTEN; the one place where the driver's errors become ours."""

import asyncio
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, LiteralString

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from psycopg import sql
from sqlalchemy import exc

from skyctl.domain import errors
from skyctl.domain.errors import DatabaseRefused, DatabaseUnavailable, Refused, SchemaMissing, SkyctlError
from skyctl.domain.shortages import shortage
from skyctl.domain.text import without_secrets
from skyctl.host import vital
from skyctl.store import location
from skyctl.store.waits import Waits, shut_down

Transaction = sa.Connection
Listener = psycopg.Connection

NEWS_CHANNEL = "skyctl_news"
CONNECT_SECONDS = 3
STATEMENT_SECONDS = 15
IDLE_SECONDS = 5  # of a process that was frozen within a transaction, and would keep its locks
RESTED_SECONDS = 1.0
LIMIT_SECONDS = 10.0
LOCK_SECONDS = 1.0
CHECK_ADDRESS = "check SKYCTL_DATABASE_URL, and that PostgreSQL runs and accepts this user"
CHECK_SCHEMA = "run `skyctl db init` against this database"


class Database:
    """A pool of connections to one PostgreSQL. Nothing is opened before the first transaction.

    `ahead` moves the database's clock in every transaction from then on: for rehearsals, and for tests. Where it
    `limits_lock_waits`, whoever waits for a lock for longer than LOCK_SECONDS gets DatabaseBusy.
    """

    def __init__(self, url: str, *, connections: int = 2, limits_lock_waits: bool = False) -> None:
        self.ahead = timedelta()
        self._waits = Waits()
        self._url = location.parse(url)
        self._arguments = {
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": CONNECT_SECONDS * 1000,
            "application_name": "skyctl",
            "options": f"{self._url.query.get('options', '')} -c statement_timeout={STATEMENT_SECONDS * 1000} "
            f"-c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000} -c timezone=UTC "
            f"-c lock_timeout={LOCK_SECONDS if limits_lock_waits else 0:g}s",
        }
        self._engine = sa.create_engine(
            self._url,
            connect_args=self._arguments,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            use_native_hstore=False,
            hide_parameters=True,
        )
        _check_the_rested(self._engine, self._waits)
        self.heartbeat_connection = HeartbeatConnection(self)

    @contextmanager
    def transaction(self, limit_seconds: float = LIMIT_SECONDS) -> Iterator[sa.Connection]:
        """One transaction, committed at the end of the block; a limit longer than STATEMENT_SECONDS is that of each
        statement, too. Raises DatabaseUnavailable, also where the database has not answered within the limit, or this
        process has nothing left to ask it with; SchemaMissing, DatabaseRefused."""
        vital.goes_on()
        with (
            _translated(self.address),
            self._engine.connect() as connection,
            self._waits.at_most(limit_seconds, _socket(connection)),
            connection.begin(),
        ):
            if self.ahead:
                connection.execute(
                    sa.select(sa.func.set_config("skyctl.ahead", f"{self.ahead.total_seconds():.6f} s", True))
                )
            if limit_seconds > STATEMENT_SECONDS:
                connection.execute(sa.select(sa.func.set_config("statement_timeout", f"{limit_seconds:g}s", True)))
            yield connection

    @contextmanager
    def listening(self, channel: str = NEWS_CHANNEL) -> Iterator[psycopg.Connection]:
        """A connection of its own that LISTENs for news; readable as soon as there is some. See `drain`."""
        self._waits.check()
        with _translated(self.address):
            connection = psycopg.connect(autocommit=True, **self.arguments)
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        with connection:
            yield connection

    @contextmanager
    def beside(self) -> Iterator[sa.Connection]:
        """One transaction on a connection beside the pool's, for what is read once in the middle of another
        transaction: that may hold the last of the pool. Raises as `transaction` does."""
        engine = sa.create_engine(self._url, connect_args=self._arguments, poolclass=sa.NullPool, hide_parameters=True)
        with _translated(self.address), engine.begin() as connection:
            yield connection

    @property
    def arguments(self) -> dict[str, Any]:
        """The driver's arguments for connecting."""
        url = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        return {"conninfo": url, **self._arguments}

    @cached_property
    def address(self) -> str:
        """The address of the database, without the passwords."""
        return location.shown(self._url)

    @property
    def way(self) -> location.Way:
        """The way to the database, for those who ask who else is on it."""
        return location.way(self._url)

    def give_up(self) -> None:
        """End all waits for the database: what runs is cut off, and what begins fails."""
        self._waits.give_up()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
        self.heartbeat_connection.close()


class HeartbeatConnection:
    """One connection of an event loop, for one statement at a time, each a transaction of its own in one round trip.

    Between the round trips of an ordinary transaction a busy loop does its other work first. But a statement that was
    sent in full is carried out by a database that was frozen meanwhile, though nobody waits for it any more. Hence the
    rule for statements here: their rows begin with now(), and they change nothing where that is after %(until)s.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.AsyncConnection | None = None
        self._turn = asyncio.Lock()
        self._asked = (-math.inf, datetime.min)  # when it was last asked and did answer, by our clock and by its own

    async def fetch(self, statement: LiteralString, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """The rows of a statement, once it is committed. Raises DatabaseUnavailable, SchemaMissing, DatabaseRefused."""
        async with self._turn:
            with _translated(self._database.address):
                connection = await self._checked()
                ours, theirs = self._asked
                until = theirs + timedelta(seconds=time.monotonic() - ours + LIMIT_SECONDS)
                values = {**parameters, "until": until}
                async with self._moved(connection, self._database.ahead):
                    rows = await self._ask(connection, LIMIT_SECONDS, statement, values)
        if self._asked[1] > until:
            raise DatabaseUnavailable(f"{self._database.address}: its clock leapt ahead", "try again")
        return rows

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.pgconn.finish()
            self._connection = None

    @asynccontextmanager
    async def _moved(self, connection: psycopg.AsyncConnection, ahead: timedelta) -> AsyncIterator[None]:
        """The database's clock moved ahead for the block, if it is to be."""
        if not ahead:
            yield
            return
        async with connection.transaction():
            await connection.execute("SELECT set_config('skyctl.ahead', %s, true)", [f"{ahead.total_seconds():.6f} s"])
            yield

    async def _checked(self) -> psycopg.AsyncConnection:
        """The connection, looked at where it has rested; a new one where that one is gone."""
        if self._connection and time.monotonic() - self._asked[0] > RESTED_SECONDS:
            with suppress(psycopg.Error):
                await self._ask(self._connection, CONNECT_SECONDS, "SELECT now()", {})
        if self._connection is None or self._connection.closed:
            self.close()
            self._connection = await psycopg.AsyncConnection.connect(autocommit=True, **self._database.arguments)
            await self._ask(self._connection, CONNECT_SECONDS, "SELECT now()", {})
        return self._connection

    async def _ask(
        self,
        connection: psycopg.AsyncConnection,
        seconds: float,
        statement: LiteralString,
        parameters: Mapping[str, object],
    ) -> list[tuple[Any, ...]]:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as ours:
            timer = asyncio.get_running_loop().call_later(seconds, shut_down, ours)
            asked = time.monotonic()
            try:
                rows = await (await connection.execute(statement, parameters)).fetchall()
            finally:
                timer.cancel()
        self._asked = (asked, rows[0][0])
        return rows


def drain(connection: psycopg.Connection) -> int:
    """Take the notifications that have arrived, without waiting; how many they were. Raises DatabaseUnavailable."""
    with _translated("the database"):
        return len(list(connection.notifies(timeout=0)))


def refuse_writes(connection: sa.Connection) -> None:
    """Have the database refuse whatever would write in the rest of this transaction."""
    connection.execute(sa.text("SET TRANSACTION READ ONLY"))


def limit_lock_waits(connection: sa.Connection, seconds: float = LOCK_SECONDS) -> None:
    """Wait at most so long (0: no limit) for each lock in the rest of this transaction, else raise DatabaseBusy."""
    connection.execute(sa.select(sa.func.set_config("lock_timeout", f"{seconds:g}s", True)))


def notify_news(connection: sa.Connection) -> None:
    """Wake the monitors when this transaction commits."""
    connection.execute(sa.select(sa.func.pg_notify(NEWS_CHANNEL, "")))


async def notify_news_now(connection: HeartbeatConnection) -> None:
    """Wake the monitors."""
    await connection.fetch("SELECT now(), pg_notify(%(channel)s, '')", {"channel": NEWS_CHANNEL})


def now(connection: sa.Connection) -> datetime:
    """The database's time: the one clock."""
    moment: datetime = connection.execute(sa.select(sa.func.skyctl_now())).scalar_one()
    return moment


def clock(connection: sa.Connection) -> datetime:
    """The time of the database's clock at this moment; `now` stands still within a transaction. Needs no schema."""
    moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return moment


def _check_the_rested(engine: sa.Engine, waits: Waits) -> None:
    """Check a connection that has rested before it is used: the database may have gone meanwhile.

    As `pool_pre_ping`, which checks always: three round trips before every batch of heartbeats.
    """

    @sa.event.listens_for(engine, "do_connect")
    def begin(*_: object) -> None:
        waits.check()

    @sa.event.listens_for(engine, "checkin")
    def note(_connection: object, record: sa.PoolProxiedConnection) -> None:
        record.info["rests_since"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def check(connection: psycopg.Connection, record: sa.PoolProxiedConnection, _proxy: object) -> None:
        if time.monotonic() - record.info.get("rests_since", math.inf) > RESTED_SECONDS:
            try:
                with waits.at_most(CONNECT_SECONDS, connection.pgconn.socket):
                    engine.dialect.do_ping(connection)  # type: ignore[arg-type]
            except psycopg.Error as error:
                raise exc.DisconnectionError from error


def _socket(connection: sa.Connection) -> int:
    driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return driver.pgconn.socket


@contextmanager
def _translated(address: str) -> Iterator[None]:
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
        case pg.IdleInTransactionSessionTimeout() | pg.ReadOnlySqlTransaction() | pg.DeadlockDetected():
            return DatabaseUnavailable(f"{address} does not go on: {reason}", CHECK_ADDRESS)
        case psycopg.ProgrammingError() if error.sqlstate is None:
            return DatabaseUnavailable(f"{address}: {reason}", CHECK_ADDRESS)
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return DatabaseUnavailable(f"{address} does not answer: {reason}", CHECK_ADDRESS)
    return DatabaseRefused(f"the database refused the statement: {reason}", "see the log of PostgreSQL")


def _one_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
