"""Sessions with the database: how one is opened and set up, with a server that takes writes, by no pooler that gives
each transaction another one, in a database that keeps every text."""

import asyncio
import os
from typing import Any
from uuid import uuid4

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.abc import AdaptContext

from skyctl.domain.errors import DatabaseUnavailable, UnfitDatabase
from skyctl.store import location
from skyctl.store.waits import Waits, at_most_here

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 15
IDLE_SECONDS = 5  # of a process that was frozen within a transaction, and would keep its locks
TAKES_WRITES = "read-write"
OWN_SESSION = (
    "have the pooler keep a session for each connection (pgbouncer: pool_mode = session for this database or user), "
    "or let SKYCTL_DATABASE_URL lead to PostgreSQL itself"
)
MORE_SESSIONS = (
    "let it have more for skyctl (pgbouncer: pool_size), or let SKYCTL_DATABASE_URL lead to PostgreSQL itself"
)
ENCODING = "UTF8"
KEEP_EVERY_TEXT = (
    "make one that does, and let SKYCTL_DATABASE_URL lead to it: createdb "
    f"--encoding={ENCODING} --locale=C.UTF-8 --template=template0 NAME; pg_dump and pg_restore take along what is there"
)
_PID = sql.SQL("SELECT pg_backend_pid()")


class Sessions:
    """Opens sessions with one database, each with our settings; their waits for locks end after `lock_seconds`, 0:
    never.

    The settings are statements, since poolers refuse them at the start of a connection. Where the URL does not say with
    what kind of server (`target_session_attrs`), it is one that takes writes.
    """

    def __init__(self, url: sa.URL, waits: Waits, lock_seconds: float) -> None:
        self._waits = waits
        self._address = location.shown(url)
        wanted = {"target_session_attrs": os.environ.get("PGTARGETSESSIONATTRS", TAKES_WRITES)}
        self._arguments: dict[str, Any] = {
            **wanted,
            **location.arguments(url),
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": CONNECT_SECONDS * 1000,
            "application_name": "skyctl",
        }
        self._needs_writes = self._arguments["target_session_attrs"] in (TAKES_WRITES, "primary")
        settings = {
            "statement_timeout": f"{STATEMENT_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
            "idle_session_timeout": "0",  # who waits for news is idle, and so is a pool
            "timezone": "UTC",
            "lock_timeout": f"{lock_seconds:g}s",
        }
        setting = sql.SQL("SET {} = {}")
        self._settings = sql.SQL("; ").join(
            setting.format(sql.Identifier(name), sql.Literal(value)) for name, value in settings.items()
        )
        self._are_kept = False

    def open(self, context: AdaptContext | None = None) -> psycopg.Connection:
        """Open one that commits each statement. Raises psycopg.Error, UnfitDatabase, and DatabaseUnavailable where
        the database is no longer waited for."""
        self._waits.check()
        connection = psycopg.connect(autocommit=True, context=context, **self._arguments)
        try:
            self._check_encoding(connection)
            if self._ask(connection, _PID).fetchone() != (connection.info.backend_pid,):
                self._check_pooler()
            self._ask(connection, self._settings)
        except BaseException:
            connection.close()
            raise
        return connection

    async def open_here(self) -> psycopg.AsyncConnection:
        """Open one of this event loop, as `open` does."""
        self._waits.check()
        connection = await psycopg.AsyncConnection.connect(autocommit=True, **self._arguments)
        try:
            self._check_encoding(connection)
            with at_most_here(CONNECT_SECONDS, connection.pgconn.socket):
                is_direct = await (await connection.execute(_PID)).fetchone() == (connection.info.backend_pid,)
            if not is_direct:
                await asyncio.to_thread(self._check_pooler)
            with at_most_here(CONNECT_SECONDS, connection.pgconn.socket):
                await connection.execute(self._settings)
        except BaseException:
            await connection.close()
            raise
        return connection

    def fits(self, connection: psycopg.Connection) -> bool:
        """Tell whether a session's server still takes writes, if it is to, as far as it has said by its last answer."""
        said = connection.pgconn.parameter_status
        return not (self._needs_writes and b"on" in (said(b"in_hot_standby"), said(b"default_transaction_read_only")))

    def _check_encoding(self, connection: psycopg.Connection | psycopg.AsyncConnection) -> None:
        """Raise UnfitDatabase where the server says that there is text which the database could never keep."""
        said = (connection.pgconn.parameter_status(b"server_encoding") or ENCODING.encode()).decode("ascii", "replace")
        if said != ENCODING:
            raise UnfitDatabase(f"{self._address} keeps text as {said}, not as {ENCODING}", KEEP_EVERY_TEXT)

    def _check_pooler(self) -> None:
        """Raise UnfitDatabase unless a pooler has been seen to keep sessions: one that is handed on after each
        transaction hears nothing in between, and what was set in it is set for others. Raises DatabaseUnavailable."""
        if self._are_kept:
            return
        try:
            self._are_kept = self._hears_while_idle()
        except psycopg.OperationalError as error:
            none = f"{self._address} is a pooler that gives no second session"
            raise DatabaseUnavailable(none, MORE_SESSIONS) from error
        if not self._are_kept:
            raise UnfitDatabase(
                f"{self._address} is a pooler that gives each transaction another session: skyctl needs one of its own "
                "for each connection",
                OWN_SESSION,
            )

    def _hears_while_idle(self) -> bool:
        """Tell whether a connection gets the notification of another one between two statements of its own."""
        channel = sql.Identifier(f"skyctl_{uuid4().hex}")
        with psycopg.connect(autocommit=True, **self._arguments) as listener:
            self._ask(listener, sql.SQL("LISTEN {}").format(channel))
            with psycopg.connect(autocommit=True, **self._arguments) as other:
                self._ask(other, sql.SQL("NOTIFY {}").format(channel))
            hears = any(listener.notifies(timeout=CONNECT_SECONDS, stop_after=1))
            self._ask(listener, sql.SQL("UNLISTEN {}").format(channel))
        return hears

    def _ask(self, connection: psycopg.Connection, statement: sql.SQL | sql.Composed) -> psycopg.Cursor:
        with self._waits.at_most(CONNECT_SECONDS, connection.pgconn.socket):
            return connection.execute(statement)
