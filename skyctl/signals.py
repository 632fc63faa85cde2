"""The signals that end a process: Ctrl-C, SIGTERM, and the terminal that goes away."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def on_end(handler: Callable[[int, FrameType | None], None]) -> None:
    """Call the handler at each of them. A SIGHUP that is ignored stays so: the parent was nohup."""
    for number in ENDING:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def exit_on_end() -> None:
    """End by SystemExit with 128 + the signal's number, so that everything in use is put away on the way out."""
    on_end(_exit)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def held_back() -> Iterator[None]:
    """Answer those that arrive within the block at its end. The programs and threads started within never see them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
