"""What heartbeats say of volumes without a name: it is kept with the worker, and what could be none is refused."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, bearer

Beat = Callable[[Any], httpx.Response]
SERVICE = "s" * 25


@pytest.fixture
def beat(serve: Callable[..., tuple[str, Process]], context: Context, request: pytest.FixtureRequest) -> Beat:
    """Send a heartbeat with these image volumes, by the fast path or past it."""
    one = invitations.invite(context, TESTS, "w1")
    url = f"{serve()[0]}/api/workers/{one.worker_id}/heartbeat{request.param}"

    def send(volumes: Any) -> httpx.Response:
        body = json.dumps(LOAD | {"imageVolumes": volumes})
        return httpx.post(url, content=body, headers=bearer(one.token), timeout=PATIENCE_SECONDS)

    return send


def kept(connection: psycopg.Connection) -> object:
    row = connection.execute("SELECT image_volumes FROM container_workers").fetchone()
    assert row
    return row[0]


BOTH = pytest.mark.parametrize("beat", ["", "?past=the-fast-path"], indirect=True)


@BOTH
@pytest.mark.parametrize(
    "volumes",
    [
        {SERVICE: ["/data", '/a "quoted" \\ one', "/{x,y}", "/é", "/" + "x" * 254]},
        {f"{number}": ["/data"] for number in range(100)},
        {SERVICE: []},
        {},
    ],
)
def test_what_an_agent_says_is_kept(beat: Beat, connection: psycopg.Connection, volumes: Any) -> None:
    answer = beat(volumes)
    assert answer.status_code == 200, answer.text
    assert kept(connection) == volumes


@pytest.mark.parametrize("beat", [""], indirect=True)
def test_what_was_said_last_stands_while_nothing_is_said(
    serve: Callable[..., tuple[str, Process]], beat: Beat, context: Context, connection: psycopg.Connection
) -> None:
    assert beat({SERVICE: ["/data"]}).status_code == 200
    other = invitations.invite(context, TESTS, "w2")
    path = f"{serve()[0]}/api/workers/{other.worker_id}/heartbeat"
    assert httpx.post(path, json=LOAD, headers=bearer(other.token), timeout=PATIENCE_SECONDS).status_code == 200
    rows = connection.execute("SELECT name, image_volumes FROM container_workers ORDER BY name").fetchall()
    assert rows == [("w1", {SERVICE: ["/data"]}), ("w2", None)]


@BOTH
def test_what_is_none_is_refused_by_name(beat: Beat, connection: psycopg.Connection) -> None:
    wrong: list[Any] = [None, 7, "x", [], True, {"": []}, {"a-b": []}, {"x" * 65: []}, {"\0": []}]
    lists: list[Any] = [None, "/data", {}, [7], [None], [""], ["data"], ["/a\nb"], ["/\ud800"]]
    wrong += [{SERVICE: paths} for paths in lists]
    wrong += [{SERVICE: ["/" + "x" * 255]}, {SERVICE: ["/\u202e"]}, {SERVICE: ["/a"] * 101}]
    wrong += [{f"{number}": [] for number in range(101)}]
    for volumes in wrong:
        answer = beat(volumes)
        assert answer.status_code == 400, volumes
        assert "imageVolumes" in answer.json()["error"]["message"], volumes
    assert kept(connection) is None
