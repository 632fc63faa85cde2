"""The door to PostgreSQL: connections, transactions, LISTEN."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from psycopg import sql
from sqlalchemy import exc

from skyctl.domain.errors import DatabaseRefused, DatabaseUnavailable, UnfitDatabase
from skyctl.host import vital
from skyctl.store import failures, location
from skyctl.store.failures import translated
from skyctl.store.sessions import CONNECT_SECONDS, STATEMENT_SECONDS, Sessions
from skyctl.store.waits import Waits, at_most_here

Transaction = sa.Connection
Listener = psycopg.Connection

NEWS_CHANNEL = "skyctl_news"
RESTED_SECONDS = 1.0
LIMIT_SECONDS = 10.0
LOCK_SECONDS = 1.0
_NAMED = 200  # a notification takes 8,000 bytes


class Database:
    """A pool of connections to one PostgreSQL. Nothing is opened before the first transaction.

    `ahead` moves the database's clock in every transaction from then on: for rehearsals, and for tests. Where it
    `limits_lock_waits`, whoever waits for a lock for longer than LOCK_SECONDS gets DatabaseBusy.
    """

    def __init__(self, url: str, *, connections: int = 2, limits_lock_waits: bool = False) -> None:
        self.ahead = timedelta()
        self._waits = Waits()
        self._url = location.parse(url)
        self.sessions = Sessions(self._url, self._waits, LOCK_SECONDS if limits_lock_waits else 0)
        self._engine = sa.create_engine(
            self._url,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            use_native_hstore=False,
            hide_parameters=True,
        )
        _open_by(self.sessions, self._engine)
        _check_the_rested(self._engine, self._waits, self.sessions)
        self.heartbeat_connection = HeartbeatConnection(self)

    @contextmanager
    def transaction(self, limit_seconds: float = LIMIT_SECONDS) -> Iterator[sa.Connection]:
        """One transaction, committed at the end of the block; a limit longer than STATEMENT_SECONDS is that of each
        statement, too. Raises DatabaseUnavailable, also where the database has not answered within the limit, or this
        process has nothing left to ask it with; SchemaMissing, DatabaseRefused."""
        vital.goes_on()
        with (
            translated(self.address),
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
        with translated(self.address):
            connection = self.sessions.open()
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        with connection:
            yield connection

    @contextmanager
    def beside(self) -> Iterator[sa.Connection]:
        """One transaction on a connection beside the pool's, for what is read once in the middle of another
        transaction: that may hold the last of the pool. Raises as `transaction` does."""
        engine = sa.create_engine(self._url, poolclass=sa.NullPool, use_native_hstore=False, hide_parameters=True)
        _open_by(self.sessions, engine)
        with translated(self.address), engine.begin() as connection:
            yield connection

    def check_fitness(self) -> None:
        """Raise UnfitDatabase where the database can never be used as it is. Where it does not answer, nothing is known
        of it, and nothing raised."""
        try:
            with self.transaction():
                pass
        except UnfitDatabase:
            raise
        except (DatabaseUnavailable, DatabaseRefused):
            return

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
            with translated(self._database.address):
                connection = await self._checked()
                ours, theirs = self._asked
                until = theirs + timedelta(seconds=time.monotonic() - ours + LIMIT_SECONDS)
                values = {**parameters, "until": until}
                try:
                    async with self._moved(connection, self._database.ahead):
                        rows = await self._ask(connection, LIMIT_SECONDS, statement, values)
                except pg.ReadOnlySqlTransaction:
                    self.close()  # the next one goes to where writes are taken by then
                    raise
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
            self._connection = await self._database.sessions.open_here()
            await self._ask(self._connection, CONNECT_SECONDS, "SELECT now()", {})
        return self._connection

    async def _ask(
        self,
        connection: psycopg.AsyncConnection,
        seconds: float,
        statement: LiteralString,
        parameters: Mapping[str, object],
    ) -> list[tuple[Any, ...]]:
        with at_most_here(seconds, connection.pgconn.socket):
            asked = time.monotonic()
            rows = await (await connection.execute(statement, parameters)).fetchall()
        self._asked = (asked, rows[0][0])
        return rows


def await_news(connection: psycopg.Connection, seconds: float) -> bool:
    """Wait for a notification; False where none has come by then. Raises DatabaseUnavailable."""
    with translated("the database"):
        return bool(list(connection.notifies(timeout=max(0.0, seconds), stop_after=1)))


def drain(connection: psycopg.Connection) -> list[str]:
    """Take the notifications that have arrived, without waiting; what they say. Raises DatabaseUnavailable."""
    with translated("the database"):
        return [notification.payload for notification in connection.notifies(timeout=0)]


def refuse_writes(connection: sa.Connection) -> None:
    """Have the database refuse whatever would write in the rest of this transaction."""
    connection.execute(sa.text("SET TRANSACTION READ ONLY"))


def prefer_indexes(connection: sa.Connection) -> None:
    """Have the rest of this transaction read by indexes, for what a partial one finds of which PostgreSQL cannot tell
    how little that is."""
    connection.execute(sa.text("SET LOCAL enable_seqscan = off"))


def require_writes(connection: sa.Connection) -> None:
    """Raise DatabaseUnavailable where the database takes no writes, as a standby; the connection is not used again."""
    if connection.execute(sa.select(sa.func.current_setting("transaction_read_only"))).scalar_one() == "on":
        connection.invalidate()
        raise DatabaseUnavailable(
            "the database takes no writes: it is a standby, or was made read-only", failures.GO_TO_PRIMARY
        )


def limit_lock_waits(connection: sa.Connection, seconds: float = LOCK_SECONDS) -> None:
    """Wait at most so long (0: no limit) for each lock in the rest of this transaction, else raise DatabaseBusy."""
    connection.execute(sa.select(sa.func.set_config("lock_timeout", f"{seconds:g}s", True)))


def notify_news(connection: sa.Connection, *worker_ids: UUID) -> None:
    """Wake the monitors when this transaction commits; of these workers, which else they may not look at."""
    connection.execute(sa.select(sa.func.pg_notify(NEWS_CHANNEL, ",".join(map(str, worker_ids)))))


async def notify_news_now(connection: HeartbeatConnection, worker_ids: Sequence[str]) -> None:
    """Wake the monitors: there is news of these workers, at least one."""
    parts = [",".join(worker_ids[start : start + _NAMED]) for start in range(0, len(worker_ids), _NAMED)]
    told = "SELECT now(), pg_notify(%(channel)s, part) FROM unnest(%(parts)s::text[]) AS part"
    await connection.fetch(told, {"channel": NEWS_CHANNEL, "parts": parts})


def now(connection: sa.Connection) -> datetime:
    """The database's time: the one clock."""
    moment: datetime = connection.execute(sa.select(sa.func.skyctl_now())).scalar_one()
    return moment


def clock(connection: sa.Connection) -> datetime:
    """The time of the database's clock at this moment; `now` stands still within a transaction. Needs no schema."""
    moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return moment


def _open_by(sessions: Sessions, engine: sa.Engine) -> None:
    """Have an engine open its connections as sessions are opened, and leave a server that takes no writes."""

    @sa.event.listens_for(engine, "do_connect")
    def begin(_dialect: object, _record: object, _arguments: object, named: dict[str, Any]) -> psycopg.Connection:
        connection = sessions.open(named.get("context"))
        connection.autocommit = False
        return connection

    @sa.event.listens_for(engine, "handle_error")
    def leave(failure: sa.ExceptionContext) -> None:
        if isinstance(failure.original_exception, pg.ReadOnlySqlTransaction):
            failure.is_disconnect = True


def _check_the_rested(engine: sa.Engine, waits: Waits, sessions: Sessions) -> None:
    """Check a connection that has rested before it is used: the database may have gone meanwhile, or takes no writes.

    As `pool_pre_ping`, which checks always: three round trips before every batch of heartbeats.
    """

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
        if not sessions.fits(connection):
            raise exc.DisconnectionError


def _socket(connection: sa.Connection) -> int:
    driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return driver.pgconn.socket
