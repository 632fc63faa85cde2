"""Turns, fair queues, the pace of answers and the limits of what is repeated."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from skyctl.api.limits import Connections, Pace, Rate, caller_of
from skyctl.api.operation import Limit
from skyctl.api.turns import CallerLeft, FairQueue, Gathered, Turns
from skyctl.domain.errors import Busy, TooOften


async def stays() -> bool:
    return False


async def has_left() -> bool:
    return True


def anyone(_: str) -> bool:
    return True


def test_callers_take_turns() -> None:
    queue: FairQueue[int] = FairQueue(10)
    for number in range(4):
        queue.put("greedy", number)
    queue.put("modest", 9)
    order = [taken for _ in range(5) if (taken := queue.take(anyone))]
    assert order == [("greedy", 0), ("modest", 9), ("greedy", 1), ("greedy", 2), ("greedy", 3)]
    assert queue.take(anyone) is None
    assert len(queue) == 0


def test_whoever_waits_for_the_most_loses_its_newest() -> None:
    queue: FairQueue[str] = FairQueue(3)
    for name in ("a1", "a2", "a3"):
        assert queue.put("a", name) is None
    assert queue.put("a", "a4") == "a4"
    assert queue.put("b", "b1") == "a3", "a newcomer has its place"
    assert queue.put("c", "c1") == "a2"
    assert queue.put("d", "d1") == "d1", "where all are alike, the last to come"
    assert [taken for _ in range(3) if (taken := queue.take(anyone))] == [("a", "a1"), ("b", "b1"), ("c", "c1")]


class Held:
    """Work that goes on until it is let go, on threads of its own."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._loop = asyncio.get_running_loop()

    def work(self, name: str) -> Callable[[], str]:
        def run() -> str:
            asyncio.run_coroutine_threadsafe(self._note(name), self._loop).result()
            self.go.wait()
            return name

        return run

    async def has_begun(self, name: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.begun[name])

    async def _note(self, name: str) -> None:
        async with self._changed:
            self.begun[name] += 1
            self._changed.notify_all()


def test_one_caller_leaves_a_thread_to_the_others() -> None:
    async def course() -> None:
        turns, held = Turns(threads=2, most_waiting=2), Held()
        greedy = [asyncio.create_task(turns.run("greedy", held.work("greedy"))) for _ in range(3)]
        await held.has_begun("greedy")
        with pytest.raises(Busy):
            await turns.run("greedy", held.work("greedy"))
        modest = asyncio.create_task(turns.run("modest", held.work("modest")))
        await held.has_begun("modest")
        assert held.begun["greedy"] == 1
        third = asyncio.create_task(turns.run("third", lambda: "third"))
        await asyncio.wait(greedy, return_when=asyncio.FIRST_COMPLETED)
        assert isinstance(greedy[2].exception(), Busy), "the newest of the greedy makes place"
        held.go.set()
        assert await asyncio.gather(modest, third, *greedy[:2]) == ["modest", "third", "greedy", "greedy"]

    asyncio.run(course())


def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    async def course() -> None:
        turns, held, done = Turns(threads=1, most_waiting=9), Held(), list[str]()

        def ask(name: str, left: Callable[[], Awaitable[bool]]) -> "asyncio.Task[str | None]":
            def note() -> str:
                done.append(name)
                return name

            return asyncio.create_task(turns.run_unless_left(name, note, left))

        first = asyncio.create_task(turns.run("first", held.work("first")))
        await held.has_begun("first")
        gone, there, cancelled = ask("gone", has_left), ask("there", stays), ask("cancelled", stays)
        await asyncio.sleep(0)
        cancelled.cancel()
        held.go.set()
        assert [await first, await gone, await there] == ["first", None, "there"]
        assert done == ["there"]
        assert await turns.run("next", lambda: "next") == "next", "its turns are free again"

    asyncio.run(course())


def test_answers_to_strangers_come_at_a_pace_and_by_address() -> None:
    async def course() -> None:
        pace, answered = Pace(per_second=1e-9, at_once=2, most_waiting=3), list[str]()

        def answer(name: str) -> Callable[[], None]:
            return lambda: answered.append(name)

        for number in range(5):
            pace.call("greedy", answer(f"greedy{number}"))
        pace.call("greedy", answer("greedy5"))
        assert answered == ["greedy0", "greedy1", "greedy5"], "none waits for the first; one too many is not kept"
        pace.call("modest", answer("modest"))
        assert answered[3:] == ["greedy4"], "the newest of the greediest makes place"

    asyncio.run(course())


def test_a_limit_of_what_is_repeated() -> None:
    rate = Rate(Limit(at_once=3, seconds=3600.0))
    for _ in range(3):
        rate.take("often")
    with pytest.raises(TooOften) as refused:
        rate.take("often")
    assert 3590 < (refused.value.retry_after_seconds or 0) <= 3600
    rate.take("seldom")
    rate.give_back("often")
    rate.take("often")
    with pytest.raises(TooOften):
        rate.take("often")


class Line:
    """A connection that only notes its end."""

    is_closed = False

    def close_at_once(self) -> None:
        self.is_closed = True


def test_connections_give_way_by_what_they_have_shown() -> None:
    connections, lines = Connections(lambda: 3), [Line() for _ in range(7)]
    for line in lines[:3]:
        connections.opened(line)
    connections.proven(lines[0], "a")
    connections.opened(lines[3])
    assert [line.is_closed for line in lines[:4]] == [False, True, False, False]
    for line in lines[2:4]:
        connections.proven(line, "b")
    connections.opened(lines[4])
    assert lines[4].is_closed, "all others hold good tokens"
    connections.closed(lines[4])
    connections.closed(lines[0])
    connections.opened(lines[5])
    assert not lines[5].is_closed


def test_by_what_a_stranger_is_known() -> None:
    assert caller_of("192.0.2.7") == "192.0.2.7"
    assert caller_of("2001:db8:1:2:3::4") == caller_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::"
    assert caller_of("2001:db8:1:3::1") != caller_of("2001:db8:1:2::1")
    assert caller_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert caller_of("fe80::1%eth0") == "fe80::"
    assert len(caller_of("x" * 9000)) == len(caller_of("x:" * 9000)) == 64


def test_what_comes_while_others_are_served_is_done_together() -> None:
    async def course() -> None:
        held, done = Held(), list[list[str]]()

        def work(names: Sequence[str]) -> list[str]:
            done.append(list(names))
            return [held.work(name)() for name in names] if names == ["first"] else list(names)

        gathered = Gathered(work, most_waiting=4, most_at_once=3)

        def ask(name: str, left: Callable[[], Awaitable[bool]] = stays) -> "asyncio.Task[str]":
            return asyncio.create_task(gathered.run(name, name, left))

        first = ask("first")
        await held.has_begun("first")
        a, gone, b, c = ask("a"), ask("gone", has_left), ask("b"), ask("c")
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await ask("one too many")
        b.cancel()
        held.go.set()
        assert [await first, await a, await c] == ["first", "a", "c"]
        with pytest.raises(CallerLeft):
            await gone
        assert done == [["first"], ["a"], ["c"]]

    asyncio.run(course())


def test_all_that_go_together_learn_why_it_failed_and_the_next_do_not() -> None:
    async def course() -> None:
        def work(names: Sequence[str]) -> list[str]:
            if "bad" in names:
                raise Busy("of the database", "")
            return list(names)

        gathered = Gathered(work, most_waiting=9, most_at_once=9)
        together = (gathered.run(name, name, stays) for name in ("bad", "good"))
        results = await asyncio.gather(*together, return_exceptions=True)
        assert [type(result) for result in results] == [Busy, Busy]
        assert await gathered.run("good", "good", stays) == "good"

    asyncio.run(course())
