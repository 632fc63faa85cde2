"""Following a log: everything from a number on, in order, through restarts of the database, until a signal."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import typer

from skyctl.cli.context import say
from skyctl.errors import DatabaseUnavailable
from skyctl.operations import log
from skyctl.signals import Stop

T = TypeVar("T")
PAUSE_SECONDS = 1.0
LOOK_SECONDS = 30.0


def follow(
    context: typer.Context, listening: Callable[[], AbstractContextManager[Any]],
    since: Callable[[int | None], Sequence[T]], number: Callable[[T], int], first: int | None, show: Callable[[T], None],
) -> None:  # fmt: skip
    """Show what comes after `first` (without it, the last one and what comes), each once, until SIGINT, SIGTERM or SIGHUP."""
    stop, last, lost = Stop(), first, False
    stop.on_signals()
    while not stop.is_set:
        try:
            with listening() as news:
                lost = False
                while not stop.is_set:
                    last = _show_new(since, number, last, show)
                    stop.wait(LOOK_SECONDS, news)
                    log.drain(news)
        except DatabaseUnavailable as error:
            if not lost:
                say(context, f"waiting: {error.message}")
            lost = True
            stop.wait(PAUSE_SECONDS)


def _show_new(
    since: Callable[[int | None], Sequence[T]], number: Callable[[T], int], last: int | None, show: Callable[[T], None]
) -> int | None:
    """Show all that is new; the number of the last one."""
    while found := since(last):
        for each in found:
            show(each)
        last = number(found[-1])
    return 0 if last is None else last
