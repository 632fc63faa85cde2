"""Shared by every command: the global options, the operations' context, how results and messages are printed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyctl import domain
from skyctl.cli import way
from skyctl.cli.grammar import Group, Options
from skyctl.domain.addresses import client_address
from skyctl.domain.errors import ExitCode, ValidationError
from skyctl.domain.text import CONTROL, printable, printable_json
from skyctl.settings import http_url
from skyctl.settings import load as load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from skyctl.domain.cluster import Actor
    from skyctl.operations.shared.context import Context
    from skyctl.settings import Settings

PLAIN_WIDTH = 400


class Output(StrEnum):
    """The formats of a result."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def is_table(self) -> bool:
        """Whether it is for people to look at, and not for programs."""
        return self in (Output.TABLE, Output.WIDE)


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How the result is printed.")]


def options(ctx: typer.Context) -> Options:
    """The global options of this call."""
    global_options = ctx.find_object(Options)
    return global_options or Options()


def settings(ctx: typer.Context) -> "Settings":
    """The settings of this call, which is for this host. Raises ValidationError, also where a context was named."""
    way.refuse_named(ctx)
    return load_settings(options(ctx).config)


@contextmanager
def open_context(
    ctx: typer.Context,
    *,
    api_url: str | None = None,
    make: bool = False,
    connections: int = 2,
    limits_lock_waits: bool = False,
) -> Iterator["Context"]:
    """Open the operations' context of this call's settings.

    `api_url` stands in for the setting; its option is the one that an error names. With `make` an embedded database is
    made where there is none. `connections` is how many the database may have at once, `limits_lock_waits` whether they
    give up a lock that somebody else holds for long. Raises DatabaseUnavailable, and ValidationError, also where this
    call was to go to a manager elsewhere.
    """
    way.take_database(ctx, make=make)
    from skyctl import wiring  # here, since it loads the database's driver, which `--help` does without

    chosen = settings(ctx)
    if api_url:
        chosen = replace(chosen, api_url=http_url("--api-url", api_url))
    opened = wiring.open_context(chosen, make=make, connections=connections, limits_lock_waits=limits_lock_waits)
    with opened as context:
        yield context


def console(ctx: typer.Context, *, stderr: bool = False) -> "Console":
    """A console for tables: as wide as they need where nobody looks, never with colour where it is not wanted."""
    from rich.console import Console  # here, since JSON and `--help` do without

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the end of the program, as is done for what is not printed by rich."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Plain(
        file=stream, no_color=options(ctx).no_color or None, width=width, highlight=False, emoji=False, markup=False
    )


def info(ctx: typer.Context, text: str) -> None:
    """A message beside the result, on stderr; nothing with --quiet."""
    if not options(ctx).quiet:
        sys.stderr.write(f"{printable(text)}\n")


def say(ctx: typer.Context, line: str) -> None:
    """A line of what was done, on stdout; nothing with --quiet."""
    if not options(ctx).quiet:
        sys.stdout.write(f"{line}\n")


def emit(ctx: typer.Context, output: Output, document: Any, table: Any, names: list[str]) -> None:
    """Print a result on stdout: the document as JSON or YAML, the names, or the renderables of `table`, a function."""
    if output is Output.JSON:
        sys.stdout.write(_json(document, indent=2))
    elif output is Output.YAML:
        sys.stdout.write(_yaml(document))
    elif output is Output.NAME:
        sys.stdout.write("".join(f"{printable(name)}\n" for name in names))
    else:
        for renderable in table():
            console(ctx).print(renderable, crop=False)  # a line that cannot be shorter goes on below


def emit_one(ctx: typer.Context, output: Output, document: Any, line: Any, name: str) -> None:
    """Print one of many on stdout, at once: a JSON or YAML document, the name, or the renderable that `line`, a
    function, gives."""
    if output is Output.JSON:
        sys.stdout.write(_json(document))
    elif output is Output.YAML:
        sys.stdout.write("---\n" + _yaml(document))
    elif output is Output.NAME:
        sys.stdout.write(f"{printable(name)}\n")
    else:
        console(ctx).print(line(), soft_wrap=True)
    sys.stdout.flush()


def _json(document: Any, indent: int | None = None) -> str:
    import json  # slow to load, and tables do without

    return printable_json(json.dumps(document, indent=indent, ensure_ascii=False)) + "\n"


def _yaml(document: Any) -> str:
    import yaml  # here, since few calls ask for it

    class Dumper(yaml.SafeDumper):
        pass

    def represent(dumper: Dumper, text: str) -> Any:
        # only between double quotes can they be escaped
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if CONTROL.search(text) else None)

    Dumper.add_representer(str, represent)
    return printable_json(str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True)))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone, and before anything is done; what is done by a manager elsewhere is
    asked with its name. Raises Abort, and ValidationError where nobody could be asked."""
    if yes:
        return
    question = way.asked_there(question)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValidationError(f"not confirmed, since there is no terminal to ask on: {question}", "give --yes")
    typer.confirm(question, abort=True, err=True)


def actor() -> "Actor":
    """Return who acts, and from where: over SSH that is the client's address."""
    import getpass  # slow to load, and only what changes something asks who acts

    try:
        name = f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        name = "cli"
    client = client_address(os.environ.get("SSH_CONNECTION", "").partition(" ")[0].partition("%")[0])
    return domain.cluster.Actor(name, ip_address=client or "local", user_agent="skyctl")


def group(app: typer.Typer) -> None:
    """Make a group without a command print its help, and exit as a usage error does."""

    @app.callback(cls=Group, invoke_without_command=True)
    def show_help(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            sys.stderr.write(ctx.get_help() + "\n")
            raise typer.Exit(ExitCode.USAGE)
