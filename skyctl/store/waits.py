"""Waits for the database, which end in time."""

import asyncio
import os
import socket
import threading
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
        with socket.socket(fileno=os.dup(number)) as ours:
            timer = threading.Timer(seconds, shut_down, [ours])
            timer.daemon = True
            timer.start()
            self._running.add(ours)
            try:
                yield
            finally:
                self._running.discard(ours)
                timer.cancel()

    def check(self) -> None:
        """Raise DatabaseUnavailable where nothing is waited for any more."""
        if self._given_up:
            raise DatabaseUnavailable("the database is no longer asked", "")

    def give_up(self) -> None:
        """Shut down what runs, and let nothing begin."""
        self._given_up = True
        for connection in list(self._running):
            shut_down(connection)


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
