"""Limits of what others may ask of a process: connections, answers to strangers, what one caller repeats."""

import asyncio
import math
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Protocol

from skyctl.api.operation import Limit
from skyctl.api.turns import FairQueue
from skyctl.domain.addresses import client_address
from skyctl.domain.errors import TooOften

FILES_OF_OURS = 256
MOST_CONNECTIONS = 120_000
MOST_CALLERS = 100_000
MOST_OF_ONE = 64  # connections of one token that nobody takes the place of


def caller_of(address: str) -> str:
    """Return whose turn a request from an address takes: that address, and of IPv6 its network of 64 bits, which is
    what one host has."""
    known = client_address(address.partition("%")[0])
    if known is None:
        return address[:64]
    return str(IPv6Address(int(IPv6Address(known)) >> 64 << 64)) if ":" in known else known


def caller_of_user(user: int) -> str:
    """Return whose turn a request by the socket of this machine takes."""
    return f"unix:{user}"


class Pace:
    """The answers to strangers, at most so many a second and each address in its turn: who waits for an answer before
    asking again can then take only so much of the event loop, over however many connections.

    None waits until `at_once` are answered within a short time. Where too many wait, the newest of the greediest is
    answered before its time.
    """

    def __init__(self, per_second: float, at_once: int, most_waiting: int = 4096) -> None:
        self._per_second, self._at_once = per_second, at_once
        self._credit, self._counted_at = float(at_once), time.monotonic()
        self._waiting: FairQueue[Callable[[], None]] = FairQueue(most_waiting)
        self._timer: asyncio.TimerHandle | None = None

    def call(self, caller: str, answer: Callable[[], None]) -> None:
        """Answer, now or when it is the caller's turn."""
        self._count()
        if self._credit >= 1 and not len(self._waiting):
            self._credit -= 1
            answer()
            return
        if early := self._waiting.put(caller, answer):
            early()
        if self._timer is None:
            self._wait()

    async def turn(self, caller: str) -> None:
        """Wait until it is the caller's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call(caller, lambda: None if turn.done() else turn.set_result(None))
        await turn

    def _count(self) -> None:
        now = time.monotonic()
        self._credit = min(self._at_once, self._credit + (now - self._counted_at) * self._per_second)
        self._counted_at = now

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later((1 - self._credit) / self._per_second, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._count()
        while self._credit >= 1 and (taken := self._waiting.take(lambda _: True)):
            self._credit -= 1
            taken[1]()
        if len(self._waiting):
            self._wait()


class Rate:
    """The callers' use of a limit."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one request of the caller's. Raises TooOften where it is one too many, which is not counted."""
        now, seconds = time.monotonic(), self._limit.seconds
        paid_until = max(now, self._paid_until.get(caller, now))
        wait = paid_until - now - (self._limit.at_once - 1) * seconds
        if wait > 0:
            raise TooOften("this was asked too often", f"at most every {seconds:g} s", math.ceil(wait))
        self._paid_until[caller] = paid_until + seconds
        self._paid_until.move_to_end(caller)
        if len(self._paid_until) > MOST_CALLERS:
            self._paid_until.popitem(last=False)

    def give_back(self, caller: str) -> None:
        """Count one request less."""
        self._paid_until[caller] = self._paid_until.get(caller, time.monotonic()) - self._limit.seconds


class Closable(Protocol):
    """A connection as far as its limit is concerned."""

    def close_at_once(self) -> None:
        """End the connection, whatever is under way on it."""


class Connections:
    """The connections of a process, fewer than the files that it may open. Where they are at their limit, a new one
    takes the place of the oldest that was not seen to hold a good token; where each was, the new one is closed. Of one
    token's, only the newest count as such.

    The limit follows that of the process's open files, which others may set while it runs."""

    def __init__(self, most: Callable[[], int] | None = None) -> None:
        self._most = most or _most_connections
        self._unproven: OrderedDict[Closable, None] = OrderedDict()
        self._proven: dict[Closable, str] = {}
        self._of_callers: dict[str, dict[Closable, None]] = {}

    def opened(self, connection: Closable) -> None:
        """Count a connection, and close what is too many."""
        self._unproven[connection] = None
        too_many = len(self._unproven) + len(self._proven) - self._most()
        for _ in range(min(too_many, len(self._unproven))):
            oldest, _ = self._unproven.popitem(last=False)
            oldest.close_at_once()

    def proven(self, connection: Closable, caller: str) -> None:
        """Note whose good token whoever is at the other end holds."""
        if self._unproven.pop(connection, connection) is not None:
            return
        self._proven[connection] = caller
        theirs = self._of_callers.setdefault(caller, {})
        theirs[connection] = None
        if len(theirs) > MOST_OF_ONE:
            oldest = next(iter(theirs))
            self._forget(oldest)
            self._unproven[oldest] = None

    def closed(self, connection: Closable) -> None:
        """Count it no more."""
        self._unproven.pop(connection, None)
        if connection in self._proven:
            self._forget(connection)

    def _forget(self, connection: Closable) -> None:
        caller = self._proven.pop(connection)
        theirs = self._of_callers[caller]
        del theirs[connection]
        if not theirs:
            del self._of_callers[caller]


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(files - min(FILES_OF_OURS, files // 2), MOST_CONNECTIONS)
