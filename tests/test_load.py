"""A thousand clients at once: every 200 stands in the database, also when PostgreSQL is killed under the load."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from skyctl.embedded import EmbeddedPostgres
from skyctl.errors import DatabaseUnavailable
from skyctl.operations import schema, workers
from skyctl.operations.world import World
from tests.conftest import Process, make_world
from tests.helpers import LOAD, bearer

CLIENTS, SECONDS = 1000, 30.0
LOG = """
    CREATE TABLE heard (worker_id uuid, number int);
    CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO heard VALUES (NEW.id, (NEW.current_load ->> 'containerCount')::int);
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
def crowd(own_server: EmbeddedPostgres) -> Iterator[tuple[World, list[tuple[str, str]]]]:
    """A thousand invited workers, and a log of every update of theirs, written by the database itself."""
    world = make_world(own_server.url)
    schema.initialize(world)
    invited = [workers.invite(world, "tests") for _ in range(CLIENTS)]
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute(LOG)
    yield world, [(str(one.worker_id), one.token) for one in invited]
    world.db.close()


async def beat_at_once(
    url: str, crowd: list[tuple[str, str]], trouble: Callable[[threading.Event], None] | None
) -> tuple[list[tuple[str, int]], Counter[int], int]:
    """Beat from every client as fast as it is answered; the (worker, number) of each 200, all statuses, the 200s since the
    trouble."""
    accepted: list[tuple[str, int]] = []
    statuses: Counter[int] = Counter()
    stop_at = time.monotonic() + SECONDS
    troubled_at = float("inf")
    recovered = 0
    refused = threading.Event()

    async def one_client(client: httpx.AsyncClient, worker_id: str, token: str) -> None:
        nonlocal recovered
        number = 0
        while time.monotonic() < stop_at:
            number += 1
            path = f"{url}/api/workers/{worker_id}/heartbeat"
            response = await client.post(path, headers=bearer(token), json=LOAD | {"containerCount": number})
            statuses[response.status_code] += 1
            if response.status_code == 200:
                accepted.append((worker_id, number))
                recovered += time.monotonic() > troubled_at
            else:
                assert response.headers["Retry-After"]
                refused.set()
                await asyncio.sleep(0.5)

    async def make_trouble() -> None:
        nonlocal troubled_at
        await asyncio.sleep(SECONDS / 3)
        if trouble:
            await asyncio.to_thread(trouble, refused)
            troubled_at = time.monotonic()

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        await asyncio.gather(make_trouble(), *(one_client(client, *pair) for pair in crowd))
    return accepted, statuses, recovered


def heard(server: EmbeddedPostgres) -> Counter[tuple[str, int]]:
    with psycopg.connect(server.url) as connection:
        return Counter((str(row[0]), int(row[1])) for row in connection.execute("SELECT worker_id, number FROM heard"))


def test_every_200_was_committed_once(
    serve: Callable[..., tuple[str, Process]], own_server: EmbeddedPostgres, crowd: tuple[World, list[tuple[str, str]]]
) -> None:
    url, _ = serve(SKYCTL_DATABASE_URL=own_server.url)
    accepted, statuses, _ = asyncio.run(beat_at_once(url, crowd[1], None))
    assert set(statuses) == {200}
    assert {worker_id for worker_id, _ in accepted} == {worker_id for worker_id, _ in crowd[1]}
    assert heard(own_server) == Counter(accepted), "none lost, none doubled"


def test_postgresql_is_killed_under_the_load(
    serve: Callable[..., tuple[str, Process]], own_server: EmbeddedPostgres, crowd: tuple[World, list[tuple[str, str]]]
) -> None:
    url, _ = serve(SKYCTL_DATABASE_URL=own_server.url)

    def kill_and_start(refused: threading.Event) -> None:
        pid = int((own_server.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        assert refused.wait(60)
        time_limit = time.monotonic() + 60
        while True:
            try:
                own_server.revive()
            except DatabaseUnavailable:
                assert time.monotonic() < time_limit
            else:
                return

    accepted, statuses, recovered = asyncio.run(beat_at_once(url, crowd[1], kill_and_start))
    assert set(statuses) == {200, 503}
    assert recovered > 0, "it recovers by itself"
    stands = heard(own_server)
    assert not Counter(accepted) - stands, "every 200 stands"
    assert max(stands.values()) == 1, "none doubled"
