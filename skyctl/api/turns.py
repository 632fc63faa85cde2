"""Turns: each kind of callers has a few threads of its own and a bounded queue before them, and none takes the place of
another."""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import anyio
import anyio.to_thread

from skyctl.domain.errors import Busy

FRESH_SECONDS = 1.0

T = TypeVar("T")
R = TypeVar("R")


class FairQueue(Generic[T]):
    """A bounded queue in which the callers take turns: whoever asks for much waits behind its own requests."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._callers: OrderedDict[str, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, caller: str, item: T) -> T | None:
        """Add an item. Return the one that has no place, if any: the newest of whoever waits for the most, which may be
        this one."""
        mine = self._callers.setdefault(caller, deque())
        mine.append(item)
        self._length += 1
        if self._length <= self._most:
            return None
        longest = max(self._callers.values(), key=len)
        loser = (
            caller if len(mine) == len(longest) else next(c for c, items in self._callers.items() if items is longest)
        )
        self._length -= 1
        refused = self._callers[loser].pop()
        if not self._callers[loser]:
            del self._callers[loser]
        return refused

    def take(self, may: Callable[[str], bool]) -> tuple[str, T] | None:
        """Return the oldest item of the caller whose turn it is among those that may have one; None where there is
        none."""
        for caller, items in self._callers.items():
            if may(caller):
                item = items.popleft()
                self._length -= 1
                self._callers.move_to_end(caller)
                if not items:
                    del self._callers[caller]
                return caller, item
        return None


class Turns:
    """The threads of one kind of callers. A single caller has all but one of them at most; who finds the queue full is
    refused at once."""

    def __init__(self, threads: int, most_waiting: int) -> None:
        self._free = threads
        self._each = max(1, threads - 1)
        self._running: Counter[str] = Counter()
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(most_waiting)
        self._limiter = anyio.CapacityLimiter(threads)

    async def run(self, caller: str, work: Callable[[], T]) -> T:
        """Return what the work gives, done on a thread when it is the caller's turn. Raises Busy."""
        await self._turn(caller)
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._end(caller)

    async def run_unless_left(
        self, caller: str, work: Callable[[], T], has_left: Callable[[], Awaitable[bool]]
    ) -> T | None:
        """Do the same; return None, and do nothing, where the caller has left by then."""
        await self._turn(caller)
        try:
            return None if await has_left() else await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._end(caller)

    async def _turn(self, caller: str) -> None:
        if self._free and self._may(caller):
            self._begin(caller)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused = self._waiting.put(caller, turn)
        if refused is not None and not refused.done():
            refused.set_exception(Busy("too many requests wait already", "try again"))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self._end(caller)
            raise

    def _may(self, caller: str) -> bool:
        return self._running[caller] < self._each

    def _begin(self, caller: str) -> None:
        self._free -= 1
        self._running[caller] += 1

    def _end(self, caller: str) -> None:
        self._free += 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        while self._free and (taken := self._waiting.take(self._may)):
            following, turn = taken
            if not turn.done():
                self._begin(following)
                turn.set_result(None)


class CallerLeft(Exception):
    """Whoever asked has left before it was its turn; nothing was done."""


class Waiting(NamedTuple, Generic[T, R]):
    """What a caller wants done, together with what others want: how to see that it has left, and its outcome."""

    wanted: T
    has_left: Callable[[], Awaitable[bool]]
    outcome: "asyncio.Future[R]"


class Gathered(Generic[T, R]):
    """A turn that many take together: while the thread is at work what comes meanwhile waits, each caller in its turn,
    and is done at once afterwards; who finds the queue full is refused at once."""

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], most_waiting: int, most_at_once: int) -> None:
        self._work, self._most_at_once = work, most_at_once
        self._waiting: FairQueue[Waiting[T, R]] = FairQueue(most_waiting)
        self._limiter = anyio.CapacityLimiter(1)
        self._task: asyncio.Task[None] | None = None

    async def run(self, caller: str, wanted: T, has_left: Callable[[], Awaitable[bool]]) -> R:
        """Return what the work gives for this. Raises Busy, CallerLeft, and what the work raises."""
        waiting = Waiting(wanted, has_left, asyncio.get_running_loop().create_future())
        refused = self._waiting.put(caller, waiting)
        if refused is not None and not refused.outcome.done():
            refused.outcome.set_exception(Busy("too many requests wait already", "try again"))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._go_on())
        outcome: R = await waiting.outcome
        return outcome

    async def _go_on(self) -> None:
        while len(self._waiting):
            batch = [each for each in self._taken() if not await self._is_over(each)]
            if batch:
                await self._do(batch)

    async def _do(self, batch: Sequence[Waiting[T, R]]) -> None:
        wanted = [each.wanted for each in batch]
        work = asyncio.ensure_future(anyio.to_thread.run_sync(self._work, wanted, limiter=self._limiter))
        await asyncio.wait([work])
        error = work.exception()
        for number, each in enumerate(batch):
            if each.outcome.done():
                continue
            if error:
                each.outcome.set_exception(error)
            else:
                each.outcome.set_result(work.result()[number])

    def _taken(self) -> list[Waiting[T, R]]:
        taken: list[Waiting[T, R]] = []
        while len(taken) < self._most_at_once and (following := self._waiting.take(lambda _: True)):
            taken.append(following[1])
        return taken

    async def _is_over(self, waiting: Waiting[T, R]) -> bool:
        has_left = await waiting.has_left()
        if has_left and not waiting.outcome.done():  # the request may have ended while this was asked
            waiting.outcome.set_exception(CallerLeft())
        return waiting.outcome.done()


class Kept(Generic[T]):
    """What is the same for everyone: kept for a second, and got once for all who ask meanwhile."""

    def __init__(self) -> None:
        self._getting: asyncio.Future[T] | None = None
        self._fresh_until = 0.0

    async def get(self, get: Callable[[], Awaitable[T]]) -> T:
        """Return what `get` gives, now or in the last second. Raises what `get` raises."""
        is_old = self._getting is None or (self._getting.done() and time.monotonic() >= self._fresh_until)
        if self._getting is None or is_old:
            self._fresh_until = 0.0
            self._getting = asyncio.ensure_future(self._keep(get))
        return await asyncio.shield(self._getting)

    async def _keep(self, get: Callable[[], Awaitable[T]]) -> T:
        kept = await get()
        self._fresh_until = time.monotonic() + FRESH_SECONDS
        return kept
