"""Follow a log in order, or watch something until it is over: through restarts of the database, until a signal."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import typer

from skyctl.cli.context import info
from skyctl.cli.desk import Desk, News
from skyctl.domain.errors import DatabaseUnavailable, ExitCode, ManagerUnavailable
from skyctl.host.signals import Stop

T = TypeVar("T")
INTERRUPTED = 130  # exit code: 128 and SIGINT's number
PAUSE_SECONDS = 1.0
READ_AGAIN_SECONDS = 30.0


def follow(
    ctx: typer.Context,
    listening: Callable[[], AbstractContextManager[News]],
    since: Callable[[int | None], Sequence[T]],
    number: Callable[[T], int],
    first: int | None,
    show: Callable[[T], None],
) -> None:
    """Show each entry after number `first` once, until SIGINT, SIGTERM or SIGHUP.

    Without `first` it begins with what `since(None)` returns. `listening` opens what wakes us at a new entry, `since`
    reads the entries after a number, `number` is the number of one.
    """
    stop, last, lost = Stop(), first, False
    stop.on_signals()
    while not stop.is_set:
        try:
            with listening() as news:
                lost = False
                while not stop.is_set:
                    last = _show_new(since, number, last, show)
                    stop.wait(READ_AGAIN_SECONDS, news)
                    news.drain()
        except (DatabaseUnavailable, ManagerUnavailable) as error:
            if not lost:
                info(ctx, f"waiting: {error.message}")
            lost = True
            stop.wait(PAUSE_SECONDS)


def _show_new(
    since: Callable[[int | None], Sequence[T]], number: Callable[[T], int], last: int | None, show: Callable[[T], None]
) -> int | None:
    """Show every new entry. Return the number of the last one."""
    while entries := since(last):
        for entry in entries:
            show(entry)
        last = number(entries[-1])
    return 0 if last is None else last


def watch(ctx: typer.Context, at: Desk, is_over: Callable[[], bool], seconds: float | None, hint: str) -> None:
    """Call `is_over` at every event, and once a second, until it returns True.

    Raises Exit after `seconds`, or at Ctrl-C: what is watched goes on, and `hint` says how to see more of it.
    """
    stop, lost = Stop(), False
    stop.on_signals()
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            with at.listening() as news:
                while not is_over():
                    lost = False
                    _check(ctx, stop, deadline, hint)
                    stop.wait(_left(deadline), news)
                    news.drain()
                return
        except (DatabaseUnavailable, ManagerUnavailable) as error:
            if not lost:
                info(ctx, f"waiting: {error.message}")
            lost = True
            _check(ctx, stop, deadline, hint)
            stop.wait(_left(deadline))


def _left(deadline: float | None) -> float:
    return PAUSE_SECONDS if deadline is None else max(0.0, min(PAUSE_SECONDS, deadline - time.monotonic()))


def _check(ctx: typer.Context, stop: Stop, deadline: float | None, hint: str) -> None:
    """Raise Exit when the time is up or a signal has arrived."""
    late = deadline is not None and time.monotonic() >= deadline
    if stop.is_set or late:
        info(ctx, f"{'timed out' if late else 'stopped watching'}: {hint}")
        raise typer.Exit(ExitCode.TIMED_OUT if late else INTERRUPTED)
