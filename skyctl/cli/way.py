"""Which way a command takes to the manager: decided once for each call, here.

The first of these: what --context or SKYCTL_CONTEXT names; a database whose URL is set; the current context; the socket
of a `serve` on this host that lets this user in; the embedded database of this host.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import typer
from typer._click.globals import get_current_context

from skyctl import host
from skyctl.cli.grammar import Options
from skyctl.domain.errors import ValidationError
from skyctl.domain.text import printable
from skyctl.host import contexts
from skyctl.host.api_address import Address
from skyctl.host.contexts import LOCAL
from skyctl.settings import Settings, load

VARIABLE = "SKYCTL_CONTEXT"
CURRENT = "`skyctl context use`"
HERE = Address("http://localhost")
_KEY = "skyctl.way"


class Kind(StrEnum):
    """The ways."""

    CONTEXT = "context"
    DATABASE = "database"
    SOCKET = "socket"
    EMBEDDED = "embedded"


class Way(NamedTuple):
    """A way; of a context also its name, where it is asked over HTTP, and by what it was named."""

    kind: Kind
    context: str = ""
    address: Address | None = None
    source: str = ""

    @property
    def shown(self) -> str:
        """The way in words."""
        if self.address:
            return f"the context {self.context}, {self.address.shown}" if self.context else self.address.shown
        return "the database that is set" if self.kind is Kind.DATABASE else "the embedded database of this host"


def chosen(ctx: typer.Context) -> Way:
    """Return the way of this call, which stays the same until its end. Raises ValidationError, ContextNotFound."""
    if _KEY not in ctx.meta:
        ctx.meta[_KEY] = _choose(ctx)
    way: Way = ctx.meta[_KEY]
    return way


def address(ctx: typer.Context) -> Address | None:
    """Return where this call asks over HTTP; None where it takes the database of its settings. Raises as `chosen`
    does."""
    return chosen(ctx).address


def named(ctx: typer.Context) -> tuple[str, str]:
    """Return by what a context is named for this call, and its name; no name where none is."""
    option = (ctx.find_object(Options) or Options()).context
    return ("--context", option) if option else (VARIABLE, os.environ.get(VARIABLE, ""))


def take_database(ctx: typer.Context, *, make: bool = False) -> None:
    """Have this call take the database of its settings, since what it does cannot be asked for over HTTP.

    Raises ValidationError where a context was named for it, and where there is no database here (but `make` makes one)
    and the current context is all that there is.
    """
    refuse_named(ctx)
    way = chosen(ctx)
    if not way.address:
        return
    if way.context:
        if not (make or host.postgres.EmbeddedPostgres(_settings(ctx).data_dir).is_made()):
            raise _works_there(ctx, way.source, way.context)
        if not (ctx.find_object(Options) or Options()).quiet:
            sys.stderr.write(f"note: on this host; the current context {printable(way.context)} is passed over\n")
    ctx.meta[_KEY] = Way(Kind.EMBEDDED)


def prefer_database(ctx: typer.Context) -> None:
    """Have this call work in its own process where it would ask by the socket, and the database is this user's to
    reach: what it does takes the engine, or the key of releases, of whoever calls."""
    if chosen(ctx).kind is Kind.SOCKET and host.postgres.EmbeddedPostgres(_settings(ctx).data_dir).is_made():
        ctx.meta[_KEY] = Way(Kind.EMBEDDED)


def comes_before(ctx: typer.Context) -> str:
    """Return what later calls take before the current context; empty where they take that. Raises ValidationError."""
    if os.environ.get(VARIABLE, ""):
        return f"the context of {VARIABLE}"
    return "the database that is set" if _settings(ctx).database_url else ""


def refuse_named(ctx: typer.Context) -> None:
    """Raise ValidationError where a context was named for a call that works on this host only."""
    source, name = named(ctx)
    if name not in ("", LOCAL):
        raise _works_there(ctx, source, name)


def _works_there(ctx: typer.Context, source: str, name: str) -> ValidationError:
    return ValidationError(
        f"`{ctx.command_path}` works on the manager's host only; {source} has chosen the context {name}",
        f"call it on that host; or, for what is on this one, with `--context {LOCAL}`",
    )


def asked_there(question: str) -> str:
    """Return a question with the context that the answer is for, where this call goes to one."""
    ctx = get_current_context(silent=True)
    way = ctx.meta.get(_KEY) if ctx else None
    if not (way and way.address and way.context):
        return question
    return f"{printable(way.context)} ({way.address.shown}): {question}"


def _choose(ctx: typer.Context) -> Way:
    source, name = named(ctx)
    if name and name != LOCAL:
        return _to(source, name)
    if _settings(ctx).database_url:
        return Way(Kind.DATABASE)
    if not name and (current := contexts.read().current):
        return _to(CURRENT, current)
    socket = _socket(_settings(ctx).data_dir)
    return Way(Kind.SOCKET, "", HERE._replace(socket_path=socket)) if socket else Way(Kind.EMBEDDED)


def _socket(data_dir: Path) -> Path | None:
    """Return the socket of a `serve` that lets this user in: of this data folder; where no database is in that, of the
    services on this host."""
    own: Path = host.admin_socket.path(data_dir)
    of_services: Path = host.admin_socket.path(host.admin_socket.DATA_OF_SERVICE)
    if host.admin_socket.is_open(own):
        return own
    is_for_it = host.admin_socket.is_open(of_services) and not host.postgres.EmbeddedPostgres(data_dir).is_made()
    return of_services if is_for_it else None


def _to(source: str, name: str) -> Way:
    return Way(Kind.CONTEXT, name, contexts.read().named(source, name).address, source)


def _settings(ctx: typer.Context) -> Settings:
    return load((ctx.find_object(Options) or Options()).config)
