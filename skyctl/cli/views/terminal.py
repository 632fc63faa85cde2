"""The terminal: written to though it may go away, and read key by key."""

import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_CONTROL_CHARACTERS = 6


class Outlet:
    """A stream that may go away under us, as the terminal or the pipe behind it does: from then on it is quiet."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write; never fails."""
        try:
            return self._stream.write(text)
        except OSError:
            return self._fall_silent(len(text))

    def flush(self) -> None:
        """Flush; never fails."""
        try:
            self._stream.flush()
        except OSError:
            self._fall_silent(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fall_silent(self, written: int) -> int:
        """Discard what is still buffered, and all that follows. Return `written`."""
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        return written


@contextmanager
def keys() -> Iterator[int | None]:
    """Hand over keys as they are pressed, unechoed, within the block: where to read them; None where there is no
    keyboard.

    Ctrl-C stays a signal. Ctrl-Z does nothing, since it would leave a full screen behind.
    """
    number = sys.stdin.fileno() if sys.stdin else -1
    if number < 0 or not os.isatty(number):
        yield None
        return
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        mode = termios.tcgetattr(number)
        mode[_CONTROL_CHARACTERS][termios.VSUSP] = os.fpathconf(number, "PC_VDISABLE").to_bytes(1)
        termios.tcsetattr(number, termios.TCSANOW, mode)
        yield number
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(number, termios.TCSADRAIN, before)


def pressed(number: int) -> str:
    """The keys that were pressed. Raises EOFError where the terminal has gone away."""
    try:
        read = os.read(number, 1024)
    except OSError as error:
        raise EOFError from error
    if not read:
        raise EOFError
    return read.decode(errors="replace")
