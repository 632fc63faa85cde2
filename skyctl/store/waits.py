"""Waits for the database, which end in time."""

import asyncio
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from skyctl.domain.errors import DatabaseUnavailable


class Waits:
    """The present waits for the database, and the means to end them: a database that is frozen, or a network that
    swallows everything, never says so, and what was not committed by then must not be when it comes back."""

    def __init__(self) -> None:
        self._running: set[socket.socket] = set()
        self._given_up = False

    @contextmanager
    def at_most(self, seconds: float, number: int) -> Iterator[None]:
        """Shut a connection down when the block takes too long."""
        self.check()
        with socket.socket(fileno=os.dup(number)) as ours, _WATCH.over(ours, seconds):
            self._running.add(ours)
            try:
                yield
            finally:
                self._running.discard(ours)

    def check(self) -> None:
        """Raise DatabaseUnavailable where nothing is waited for any more."""
        if self._given_up:
            raise DatabaseUnavailable("the database is no longer asked", "")

    def give_up(self) -> None:
        """Shut down what runs, and let nothing begin."""
        self._given_up = True
        for connection in list(self._running):
            shut_down(connection)


class _Watch:
    """Shuts down each connection whose time is over, by one thread for the whole process: to start one for each wait
    takes longer than most transactions."""

    def __init__(self) -> None:
        self._ends: dict[socket.socket, float] = {}
        self._earlier = threading.Condition()
        self._wakes_at = math.inf
        self._thread = threading.Thread()

    @contextmanager
    def over(self, connection: socket.socket, seconds: float) -> Iterator[None]:
        """Watch over a connection for the block."""
        ends_at = time.monotonic() + seconds
        with self._earlier:
            if not self._thread.is_alive():  # nor is it in a process that was forked
                self._thread = threading.Thread(target=self._run, name="waits", daemon=True)
                self._thread.start()
            self._ends[connection] = ends_at
            if ends_at < self._wakes_at:
                self._earlier.notify()
        try:
            yield
        finally:
            with self._earlier:
                del self._ends[connection]

    def _run(self) -> None:
        with self._earlier:
            while True:
                now = time.monotonic()
                for connection in [each for each, ends_at in self._ends.items() if ends_at <= now]:
                    shut_down(connection)
                    self._ends[connection] = math.inf
                self._wakes_at = min(self._ends.values(), default=math.inf)
                self._earlier.wait(None if self._wakes_at == math.inf else self._wakes_at - now)


_WATCH = _Watch()


@contextmanager
def at_most_here(seconds: float, number: int) -> Iterator[None]:
    """Shut a connection of this event loop down when the block takes too long."""
    with socket.socket(fileno=os.dup(number)) as ours:
        timer = asyncio.get_running_loop().call_later(seconds, shut_down, ours)
        try:
            yield
        finally:
            timer.cancel()


def shut_down(connection: socket.socket) -> None:
    """End a connection, whoever waits for it."""
    with suppress(OSError):  # it was closed meanwhile
        connection.shutdown(socket.SHUT_RDWR)
