"""A thousand clients at once: every 200 stands in the database, also when PostgreSQL is killed under the load."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import schema
from tests.conftest import SECRET, Process, make_context
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    add_worker,
    eventually,
    kill_server,
    not_started_again,
    worker_token,
)

CLIENTS, BEATS = 1000, 5
LOG = """
    CREATE TABLE heard (worker_id uuid, number int, at timestamptz DEFAULT clock_timestamp());
    CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO heard (worker_id, number) VALUES (NEW.id, (NEW.current_load ->> 'containerCount')::int);
        RETURN NEW;
    END $$;
    CREATE TRIGGER hear AFTER UPDATE OF current_load ON container_workers FOR EACH ROW EXECUTE FUNCTION hear();
"""


@pytest.fixture
def own_server(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server of this test's own, which it may kill."""
    server = EmbeddedPostgres(open_folder / uuid4().hex[:8])
    with server.running():
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # the machine stays: a killed process loses none of it
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def crowd(own_server: EmbeddedPostgres) -> list[tuple[str, str]]:
    """A thousand workers, and a log of every update of theirs, written by the database itself."""
    context = make_context(own_server.url)
    schema.initialize(context)
    context.db.close()
    tokens = {worker_id: worker_token(SECRET, worker_id) for worker_id in (uuid4() for _ in range(CLIENTS))}
    with psycopg.connect(own_server.url) as connection:
        for worker_id, token in tokens.items():
            add_worker(connection, token, id=worker_id)
        connection.execute(LOG)
    return [(str(worker_id), token) for worker_id, token in tokens.items()]


@dataclass
class Connection:
    """One kept connection, opened again where the server closed it, as an agent does.

    The clients of a library share a pool, and search it for each request: a thousand of them would starve each other.
    """

    url: httpx.URL
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def beat(self, worker_id: str, token: str, load: dict[str, float]) -> tuple[int, bytes] | None:
        """The status and the head of the answer to one heartbeat; None where the connection ended without one."""
        body = json.dumps(load).encode()
        head = (
            f"POST /api/workers/{worker_id}/heartbeat HTTP/1.1\r\nHost: tests\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            if not self._streams:
                self._streams = await asyncio.open_connection(self.url.host, self.url.port)
            reader, writer = self._streams
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(answer.partition(b"content-length: ")[2].split()[0]))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return None
        return int(answer.split()[1]), answer

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None


@dataclass
class Answers:
    """What a thousand clients were answered: the (worker, number) of each 200, and of each beat without one."""

    accepted: list[tuple[str, int]] = field(default_factory=list)
    others: list[tuple[str, int]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    all_beat_twice: asyncio.Event = field(default_factory=asyncio.Event)
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    is_away: bool = False
    back: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, url: str, worker_id: str, token: str) -> None:
        """Beat until enough was accepted, the last of it once all is over. Who is refused while the database is away
        waits until it is back."""
        connection, left = Connection(httpx.URL(url)), BEATS
        for number in count(1):
            over = self.over.is_set()
            answer = await connection.beat(worker_id, token, LOAD | {"containerCount": number})
            accepted = self._note(answer, (worker_id, number))
            if not accepted and self.is_away:
                await self.back.wait()
            left -= accepted
            if left <= 0 and over and accepted:
                break
        connection.close()

    def _note(self, answer: tuple[int, bytes] | None, beat: tuple[str, int]) -> bool:
        status, head = answer or (0, b"")
        self.statuses[status] += 1
        if status == 200:
            self.accepted.append(beat)
            if len(self.accepted) >= 2 * CLIENTS:
                self.all_beat_twice.set()
            return True
        self.others.append(beat)
        if status:
            assert b"\r\nretry-after: " in head
            self.refused.set()
        return False


Course = Callable[[Answers], Awaitable[None]]


async def beat_at_once(url: str, crowd: list[tuple[str, str]], course: Course) -> Answers:
    """Beat from every client at once, until the course of events has ended and each client was heard since."""
    answers = Answers()

    async def run_course() -> None:
        await course(answers)
        answers.over.set()

    async with asyncio.timeout(2 * PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(run_course())
        for worker_id, token in crowd:
            tasks.create_task(answers.client(url, worker_id, token))
    return answers


def check(server: EmbeddedPostgres, crowd: list[tuple[str, str]], answers: Answers) -> None:
    """Every 200 stands, once; what else stands was sent and not accepted, once as well."""
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT worker_id::text, number, count(*) FROM heard GROUP BY 1, 2").fetchall()
    stands = {(worker_id, number) for worker_id, number, _ in rows}
    assert {times for *_, times in rows} == {1}, "none doubled"
    assert not set(answers.accepted) - stands, "none lost"
    assert not stands - set(answers.accepted) - set(answers.others), "none made up"
    each = Counter(worker_id for worker_id, _ in answers.accepted)
    assert each.keys() == {worker_id for worker_id, _ in crowd}
    assert min(each.values()) >= BEATS
    assert not set(answers.statuses) - {200, 503, 0}, "a slow database is said, and a kept connection may be ended"


async def nothing_happens(answers: Answers) -> None:
    await answers.all_beat_twice.wait()


def test_every_200_was_committed_once(
    serve: Callable[..., tuple[str, Process]], own_server: EmbeddedPostgres, crowd: list[tuple[str, str]]
) -> None:
    url, _ = serve(SKYCTL_DATABASE_URL=own_server.url)
    check(own_server, crowd, asyncio.run(beat_at_once(url, crowd, nothing_happens)))


def test_postgresql_is_killed_under_the_load(
    serve: Callable[..., tuple[str, Process]], own_server: EmbeddedPostgres, crowd: list[tuple[str, str]]
) -> None:
    url, _ = serve(SKYCTL_DATABASE_URL=own_server.url)

    async def kill(answers: Answers) -> None:
        await answers.all_beat_twice.wait()
        with not_started_again(own_server):
            kill_server(own_server)
            answers.is_away = True
            answers.refused.clear()
            await answers.refused.wait()
        await asyncio.to_thread(eventually, own_server.answers)
        answers.is_away = False
        answers.back.set()

    answers = asyncio.run(beat_at_once(url, crowd, kill))
    assert answers.statuses[503]
    check(own_server, crowd, answers)
    with psycopg.connect(own_server.url) as connection:
        query = "SELECT count(DISTINCT worker_id) FROM heard WHERE at > pg_postmaster_start_time()"
        since = connection.execute(query).fetchone()
    assert since == (CLIENTS,), "each is heard again by itself"
