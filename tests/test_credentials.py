"""What a host may be trusted with: its token is replaced and revoked while it works, seen over real sockets."""

from collections.abc import Callable, Iterator

import httpx
import psycopg
import pytest

from skyctl.operations import credentials, workers
from skyctl.operations.world import World
from tests.conftest import Process
from tests.helpers import LOAD, PATIENCE_SECONDS, TESTS, bearer

Serve = Callable[..., tuple[str, Process]]


@pytest.fixture
def api(serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as client:
        yield client


def beat(api: httpx.Client, worker_id: object, token: str, query: str = "") -> httpx.Response:
    return api.post(f"/api/workers/{worker_id}/heartbeat{query}", headers=bearer(token), json=LOAD)


def kinds(connection: psycopg.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT kind FROM worker_events ORDER BY seq")]


@pytest.mark.parametrize("query", ["", "?past=the-lane"])
def test_a_new_token_travels_in_the_answer_until_it_is_used(
    api: httpx.Client, world: World, connection: psycopg.Connection, query: str
) -> None:
    one = workers.invite(world, TESTS)
    assert "newToken" not in beat(api, one.worker_id, one.token, query).json()
    credentials.rotate(world, one.worker_id, TESTS)
    handed = beat(api, one.worker_id, one.token, query)
    assert handed.status_code == 200
    new = handed.json()["newToken"]
    assert new != one.token
    assert beat(api, one.worker_id, one.token, query).json()["newToken"] == new, "the first answer may have been lost"
    assert new not in str(connection.execute("SELECT * FROM container_workers").fetchall()), "only hashes are stored"

    used = beat(api, one.worker_id, new, query)
    assert (used.status_code, "newToken" in used.json()) == (200, False)
    assert beat(api, one.worker_id, one.token, query).status_code == 401
    assert "newToken" not in beat(api, one.worker_id, new, query).json()
    assert kinds(connection) == ["invited", "token_rotation_asked", "token_rotated"]
