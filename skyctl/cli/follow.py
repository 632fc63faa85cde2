"""Following what happens, through restarts of the database, until a signal: a log in order, or something until it is
over."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from skyctl.cli.context import info
from skyctl.domain.errors import DatabaseUnavailable, ExitCode
from skyctl.host.signals import Stop
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.operations.shared.context import Context

T = TypeVar("T")
INTERRUPTED = 130  # exit code: 128 and SIGINT's number
PAUSE_SECONDS = 1.0
LOOK_SECONDS = 30.0


def follow(
    ctx: typer.Context,
    listening: Callable[[], AbstractContextManager[Any]],
    since: Callable[[int | None], Sequence[T]],
    number: Callable[[T], int],
    first: int | None,
    show: Callable[[T], None],
) -> None:
    """Show what comes after `first` (without it, the last one and what comes), each once, until SIGINT, SIGTERM or
    SIGHUP."""
    stop, last, lost = Stop(), first, False
    stop.on_signals()
    while not stop.is_set:
        try:
            with listening() as news:
                lost = False
                while not stop.is_set:
                    last = _show_new(since, number, last, show)
                    stop.wait(LOOK_SECONDS, news)
                    admin.events.drain(news)
        except DatabaseUnavailable as error:
            if not lost:
                info(ctx, f"waiting: {error.message}")
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


def watch(
    ctx: typer.Context, context: "Context", is_over: Callable[[], bool], seconds: float | None, cut_short: str
) -> None:
    """Look at every event, and once a second, until it is over. Ends the command where that takes longer than so many
    seconds, or at Ctrl-C: what is watched goes on, and `cut_short` says how to see more of it."""
    stop, lost = Stop(), False
    stop.on_signals()
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            with admin.events.listening(context) as news:
                while not is_over():
                    lost = False
                    _check(ctx, stop, deadline, cut_short)
                    stop.wait(_left(deadline), news)
                    admin.events.drain(news)
                return
        except DatabaseUnavailable as error:
            if not lost:
                info(ctx, f"waiting: {error.message}")
            lost = True
            _check(ctx, stop, deadline, cut_short)
            stop.wait(_left(deadline))


def _left(deadline: float | None) -> float:
    return PAUSE_SECONDS if deadline is None else max(0.0, min(PAUSE_SECONDS, deadline - time.monotonic()))


def _check(ctx: typer.Context, stop: Stop, deadline: float | None, cut_short: str) -> None:
    """Raises Exit when the time is up, or somebody wants no more."""
    late = deadline is not None and time.monotonic() >= deadline
    if stop.is_set or late:
        info(ctx, f"{'timed out' if late else 'stopped watching'}: {cut_short}")
        raise typer.Exit(ExitCode.TIMED_OUT if late else INTERRUPTED)
