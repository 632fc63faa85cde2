"""skyctl cluster top: the cluster on the whole screen, looked at again every two seconds and at every event."""

import select
import signal
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from types import FrameType
from typing import IO, Any, cast

from rich.console import Console
from rich.live import Live

from skyctl.cli.views import top
from skyctl.cli.views.terminal import Outlet, keys, pressed
from skyctl.domain.cluster import Load, Overview
from skyctl.domain.errors import SkyctlError
from skyctl.host.signals import Stop
from skyctl.operations.admin import events, overview
from skyctl.operations.shared.context import Context

REFRESH_SECONDS = 2.0
LEAST_SECONDS = 0.2
# Of a database that takes long to answer, at most this part of the time is asked for.
LEAST_RESTS = 4.0
REDRAW_SECONDS = 1.0
LEAVE_SECONDS = 1.0
MOST_LOADS = 30


class Bell:
    """Rung from another thread or a signal's handler; it can be waited for beside other things."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def ring(self) -> None:
        """Ring; never waits."""
        with suppress(BlockingIOError):  # it rings already
            self._writer.send(b"\0")

    def hush(self) -> None:
        """Ring no more."""
        with suppress(BlockingIOError):
            self.reader.recv(4096)


class Lookout(threading.Thread):
    """Looks at the cluster again and again, so that the screen and the keys never wait for the database.

    `picture` is what was seen last; the bell rings when there is another.
    """

    def __init__(self, context: Context, console: Console, bell: Bell, first: Overview) -> None:
        super().__init__(name="lookout", daemon=True)
        self._context, self._console, self._bell = context, console, bell
        self._over = Stop()
        self._loads: deque[Load] = deque(maxlen=MOST_LOADS)
        self._sampled_at = 0.0
        self.picture = top.Picture(first)
        self._note(first)

    def run(self) -> None:
        """Look until `leave`; while the database is away, try again."""
        while not self._over.is_set:
            try:
                with events.listening(self._context) as news:
                    while not self._over.is_set:
                        began = time.monotonic()
                        self._note(look(self._context, self._console))
                        took = time.monotonic() - began
                        self._over.wait(max(LEAST_SECONDS, LEAST_RESTS * took))
                        self._over.wait(max(0.0, REFRESH_SECONDS - (time.monotonic() - began)), news)
                        events.drain(news)
            except SkyctlError as error:
                self._show(top.Picture(self.picture.overview, self.picture.history, _trouble(self.picture, error)))
                self._over.wait(REFRESH_SECONDS)

    def leave(self) -> None:
        """End; a look that hangs is left to the end of the process."""
        self._over.set()
        self.join(LEAVE_SECONDS)

    def _note(self, seen: Overview) -> None:
        if time.monotonic() - self._sampled_at >= 0.9 * REFRESH_SECONDS:  # events make for further looks in between
            self._loads.append(seen.stats.load)
            self._sampled_at = time.monotonic()
        self._show(top.Picture(seen, tuple(self._loads)))

    def _show(self, picture: top.Picture) -> None:
        self.picture = picture
        self._bell.ring()


def look(context: Context, console: Console) -> Overview:
    """The cluster now, with as much as fits on the screen. Raises DatabaseUnavailable."""
    return overview.overview(context, max(1, console.height))


def show(context: Context, console: Console) -> None:
    """Show the cluster until `q`, Ctrl-C, SIGTERM, or the end of the terminal. Raises DatabaseUnavailable at the start
    alone."""
    stop, bell = Stop(), Bell()
    stop.on_signals()
    lookout = Lookout(context, console, bell, look(context, console))

    def resized(_number: int, _frame: FrameType | None) -> None:
        bell.ring()

    signal.signal(signal.SIGWINCH, resized)
    console.file = cast(IO[str], Outlet(console.file))
    with keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        lookout.start()
        while not stop.is_set:
            live.update(top.FullScreen(lookout.picture), refresh=True)
            watched: list[Any] = [bell.reader] if keyboard is None else [bell.reader, keyboard]
            if stop.wait(REDRAW_SECONDS, *watched) and keyboard in select.select(watched, [], [], 0)[0]:
                _obey(cast(int, keyboard), stop)
            bell.hush()
    lookout.leave()


def _obey(keyboard: int, stop: Stop) -> None:
    try:
        if "q" in pressed(keyboard).lower():
            stop.set()
    except EOFError:
        stop.set()


def _trouble(picture: top.Picture, error: SkyctlError) -> str:
    return f"no news since {picture.overview.read_at:%H:%M:%S} UTC, trying again: {error.message}"
