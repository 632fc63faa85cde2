"""What the lists have in common: filters that are given several times, pages, and watching."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, cast

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.context import Output, console, emit, info
from skyctl.domain.errors import DatabaseUnavailable, ManagerUnavailable, ValidationError
from skyctl.domain.text import printable
from skyctl.host.signals import Stop

if TYPE_CHECKING:
    from skyctl.cli.desk import Desk

Choice = TypeVar("Choice", bound=StrEnum)
PAGE = 100
REDRAW_SECONDS = 2.0
SEVERAL = "repeatable, or with commas"

LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", min=1, max=100_000, help=f"How many to show; else {PAGE}, and all with -o json, yaml or name."
    ),
]
OffsetOption = Annotated[int, typer.Option(min=0, max=999_999_999, help="How many to pass over.")]
WatchOption = Annotated[
    bool, typer.Option("--watch", "-w", help="Draw the table again as it changes, until Ctrl-C; on a terminal alone.")
]


class Listed(NamedTuple):
    """A list as it is printed: its document, its renderables, the names in it, and notes beside it."""

    document: Any
    table: Callable[[], Sequence[Any]]
    names: list[str]
    notes: Sequence[str] = ()


def words(values: Sequence[str] | None) -> list[str]:
    """Return the words of an option that may be given several times, with commas too."""
    return [word.strip() for value in values or () for word in value.split(",")]


def joined(values: Sequence[str]) -> str | None:
    """Return several values as the API's query takes them; None for none."""
    return ",".join(values) or None


def chosen(option: str, values: Sequence[str] | None, choices: Iterable[Choice]) -> list[Choice]:
    """Return the choices that an option names. Raises ValidationError that names the option."""
    by_word, wanted = {choice.value: choice for choice in choices}, words(values)
    for word in wanted:
        if word not in by_word:
            raise documents.http.invalid(option, word, f"one of {', '.join(by_word)}")
    return [by_word[word] for word in wanted]


def filter_option(option: str, choices: Iterable[StrEnum], what: str) -> Any:
    """Make an option that takes some of the choices. See `chosen`."""

    names = [choice.value for choice in choices]

    def begun(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return typer.Option(option, metavar=f"<{'|'.join(names)}>", help=f"Only {what}; {SEVERAL}.", autocompletion=begun)


def size(limit: int | None, output: Output, page: int = PAGE) -> int | None:
    """Return how many rows to read: a page for people, all for programs, unless it is said."""
    return limit if limit is not None or not output.is_table else page


def show(ctx: typer.Context, desk: "Desk", output: Output, read: Callable[[], Listed], *, watch: bool = False) -> None:
    """Print a list; with `watch` again and again. Raises ValidationError where that is not on a terminal."""
    if watch:
        _watch(ctx, desk, output, read)
        return
    listed = read()
    emit(ctx, output, listed.document, listed.table, listed.names)
    for note in listed.notes:
        info(ctx, note)


def _watch(ctx: typer.Context, desk: "Desk", output: Output, read: Callable[[], Listed]) -> None:
    """Draw a list on the whole screen at every event, and every two seconds, until a signal."""
    if not (output.is_table and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb")):
        hint = "leave it out, or go on with what happens: skyctl events --follow -o json"
        raise ValidationError("--watch draws tables on a terminal, and this is none", hint)
    from rich.console import Group  # here, since JSON and `--help` do without
    from rich.live import Live  # here, for the same reason
    from rich.text import Text  # here, for the same reason

    stop, screen = Stop(), console(ctx)
    stop.on_signals()
    lines: list[Any] = []
    listed = read()  # what is wrong with the wish is said before the screen is cleared
    screen.file = cast(IO[str], views.terminal.Outlet(screen.file))
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        while not stop.is_set:
            try:
                with desk.listening() as news:
                    while not stop.is_set:
                        lines[:] = [*listed.table(), *(Text(printable(note)) for note in listed.notes)]
                        live.update(Group(*lines), refresh=True)
                        stop.wait(REDRAW_SECONDS, news)
                        news.drain()
                        listed = read()
            except (DatabaseUnavailable, ManagerUnavailable) as error:
                live.update(Group(*lines, Text(printable(f"waiting: {error.message}"))), refresh=True)
                stop.wait(REDRAW_SECONDS)
