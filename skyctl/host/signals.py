"""The signals that end a process: Ctrl-C, SIGTERM, and the terminal that goes away."""

import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

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


class Stop:
    """A stop that a signal asks for, and that any wait notices at once."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self.is_set = False

    def on_signals(self) -> None:
        """Stop at the signals that end a process."""
        on_end(self._handle)

    def set(self) -> None:
        """Ask for the stop."""
        self.is_set = True
        self._writer.send(b"\0")

    def wait(self, seconds: float, *others: Any) -> bool:
        """Wait for the time to pass, for one of the others to have something to read, or for the stop; whether one of
        the others has."""
        if self.is_set:
            return False
        return any(
            ready is not self._reader for ready in select.select([self._reader, *others], [], [], max(0.0, seconds))[0]
        )

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.set()


@contextmanager
def held_back() -> Iterator[None]:
    """Answer those that arrive within the block at its end. The programs and threads started within never see them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
