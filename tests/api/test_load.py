"""A thousand clients at once: every 200 stands in the database, also when PostgreSQL is killed under the load."""

import asyncio
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
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import Process, make_context
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, bearer, eventually, kill_server, not_started_again

CLIENTS, SECONDS = 1000, 30.0
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
        yield server


@pytest.fixture
def crowd(own_server: EmbeddedPostgres) -> Iterator[tuple[Context, list[tuple[str, str]]]]:
    """A thousand invited workers, and a log of every update of theirs, written by the database itself."""
    context = make_context(own_server.url)
    schema.initialize(context)
    invited = [invitations.invite(context, TESTS) for _ in range(CLIENTS)]
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute(LOG)
    yield context, [(str(one.worker_id), one.token) for one in invited]
    context.db.close()


@dataclass
class Answers:
    """What a thousand clients were told: the (worker, number) of each 200, how many answers had each status."""

    accepted: list[tuple[str, int]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, http: httpx.AsyncClient, url: str, worker_id: str, token: str) -> None:
        """Beat as fast as it is answered, and more slowly while it is refused."""
        for number in count(1):
            path = f"{url}/api/workers/{worker_id}/heartbeat"
            response = await http.post(path, headers=bearer(token), json=LOAD | {"containerCount": number})
            self.statuses[response.status_code] += 1
            if response.status_code == 200:
                self.accepted.append((worker_id, number))
                self.heard.set()
            else:
                assert response.headers["Retry-After"]
                self.refused.set()
                await asyncio.sleep(0.5)
            if self.over.is_set():
                return


Story = Callable[[Answers], Awaitable[None]]


async def beat_at_once(url: str, crowd: list[tuple[str, str]], story: Story) -> Answers:
    """Beat from every client at once until the story ends."""
    answers = Answers()

    async def tell() -> None:
        try:
            await story(answers)
        finally:
            answers.over.set()

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(limits=limits, timeout=PATIENCE_SECONDS, trust_env=False) as http:
        await asyncio.gather(tell(), *(answers.client(http, url, *pair) for pair in crowd))
    return answers


def heard(server: EmbeddedPostgres) -> Counter[tuple[str, int]]:
    with psycopg.connect(server.url) as connection:
        return Counter((str(row[0]), int(row[1])) for row in connection.execute("SELECT worker_id, number FROM heard"))


def test_every_200_was_committed_once(
    serve: Callable[..., tuple[str, Process]],
    own_server: EmbeddedPostgres,
    crowd: tuple[Context, list[tuple[str, str]]],
) -> None:
    url, _ = serve(SKYCTL_DATABASE_URL=own_server.url)
    answers = asyncio.run(beat_at_once(url, crowd[1], lambda _: asyncio.sleep(SECONDS)))
    assert set(answers.statuses) == {200}
    assert {worker_id for worker_id, _ in answers.accepted} == {worker_id for worker_id, _ in crowd[1]}
    assert heard(own_server) == Counter(answers.accepted), "none lost, none doubled"


def test_postgresql_is_killed_under_the_load(
    serve: Callable[..., tuple[str, Process]],
    own_server: EmbeddedPostgres,
    crowd: tuple[Context, list[tuple[str, str]]],
) -> None:
    url, _ = serve(SKYCTL_DATABASE_URL=own_server.url)

    async def kill(answers: Answers) -> None:
        await asyncio.sleep(SECONDS / 3)
        with not_started_again(own_server):
            kill_server(own_server)
            await answers.refused.wait()
        await asyncio.to_thread(eventually, own_server.answers)
        answers.heard.clear()
        await answers.heard.wait()
        await asyncio.sleep(SECONDS / 3)

    answers = asyncio.run(beat_at_once(url, crowd[1], kill))
    assert set(answers.statuses) == {200, 503}
    stands = heard(own_server)
    assert not Counter(answers.accepted) - stands, "every 200 stands"
    assert max(stands.values()) == 1, "none doubled"
    with psycopg.connect(own_server.url) as connection:
        since = connection.execute("SELECT count(*) FROM heard WHERE at > pg_postmaster_start_time()").fetchone()
    assert since is not None
    assert since[0] > 0, "it recovers by itself"
