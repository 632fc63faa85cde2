"""skyctl cluster top: the cluster on the whole screen, read again every two seconds and at every event."""

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

from skyctl.cli.desk import Desk, overview
from skyctl.cli.views import formats, top
from skyctl.cli.views.terminal import Outlet, keys, pressed
from skyctl.documents.http import Document
from skyctl.domain.errors import SkyctlError
from skyctl.host.signals import Stop

REFRESH_SECONDS = 2.0
LEAST_SECONDS = 0.2
# Of a database that takes long to answer, at most this part of the time is asked for.
LEAST_RESTS = 4.0
REDRAW_SECONDS = 1.0
LEAVE_SECONDS = 1.0
MOST_LOADS = 30


class Wakeup:
    """A flag that another thread or a signal's handler sets, and that `select` can wait for."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def set(self) -> None:
        """Make it readable; never waits."""
        with suppress(BlockingIOError):  # it is full, so it is readable already
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Make it unreadable again."""
        with suppress(BlockingIOError):
            self.reader.recv(4096)


class Refresher(threading.Thread):
    """Reads the cluster in a thread of its own, so that the screen and the keys never wait for the database.

    `picture` is what was read last; `wakeup` is set when there is another.
    """

    def __init__(self, desk: Desk, console: Console, wakeup: Wakeup, first: Document) -> None:
        super().__init__(name="refresher", daemon=True)
        self._desk, self._console, self._wakeup = desk, console, wakeup
        self._over = Stop()
        self._loads: deque[Document] = deque(maxlen=MOST_LOADS)
        self._sampled_at = 0.0
        self.picture = top.Picture(first)
        self._note(first)

    def run(self) -> None:
        """Read until `stop`; while the database is away, try again."""
        while not self._over.is_set:
            try:
                with self._desk.listening() as news:
                    while not self._over.is_set:
                        began = time.monotonic()
                        self._note(read(self._desk, self._console))
                        took = time.monotonic() - began
                        self._over.wait(max(LEAST_SECONDS, LEAST_RESTS * took))
                        self._over.wait(max(0.0, REFRESH_SECONDS - (time.monotonic() - began)), news)
                        news.drain()
            except SkyctlError as error:
                self._show(top.Picture(self.picture.overview, self.picture.history, _trouble(self.picture, error)))
                self._over.wait(REFRESH_SECONDS)

    def stop(self) -> None:
        """End the thread; a query that hangs is left to the end of the process."""
        self._over.set()
        self.join(LEAVE_SECONDS)

    def _note(self, current: Document) -> None:
        if time.monotonic() - self._sampled_at >= 0.9 * REFRESH_SECONDS:  # events make for further looks in between
            self._loads.append(current["stats"]["totalLoad"])
            self._sampled_at = time.monotonic()
        self._show(top.Picture(current, tuple(self._loads)))

    def _show(self, picture: top.Picture) -> None:
        self.picture = picture
        self._wakeup.set()


def read(desk: Desk, console: Console) -> Document:
    """Return the cluster as it is now, with as many workers as fit on the screen. Raises SkyctlError."""
    return overview(desk, max(1, console.height))


def show(desk: Desk, console: Console) -> None:
    """Show the cluster until `q`, Ctrl-C, SIGTERM, or the end of the terminal. Raises SkyctlError at the start
    alone."""
    stop, wakeup = Stop(), Wakeup()
    stop.on_signals()
    refresher = Refresher(desk, console, wakeup, read(desk, console))

    def resized(_number: int, _frame: FrameType | None) -> None:
        wakeup.set()

    signal.signal(signal.SIGWINCH, resized)
    console.file = cast(IO[str], Outlet(console.file))
    with keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        refresher.start()
        while not stop.is_set:
            live.update(top.FullScreen(refresher.picture), refresh=True)
            watched: list[Any] = [wakeup.reader] if keyboard is None else [wakeup.reader, keyboard]
            if stop.wait(REDRAW_SECONDS, *watched) and keyboard in select.select(watched, [], [], 0)[0]:
                _obey(cast(int, keyboard), stop)
            wakeup.clear()
    refresher.stop()


def _obey(keyboard: int, stop: Stop) -> None:
    try:
        if "q" in pressed(keyboard).lower():
            stop.set()
    except EOFError:
        stop.set()


def _trouble(picture: top.Picture, error: SkyctlError) -> str:
    since = formats.clock(picture.overview["readAt"], "%H:%M:%S %Z")
    return f"no news since {since}, trying again: {error.message}"
