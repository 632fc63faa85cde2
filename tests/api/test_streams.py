"""Events and alerts as they come, over HTTP: without a gap, and until the client, its token or the server ends."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from skyctl.api.streams import MOST_OF_ONE
from skyctl.domain.api_tokens import Role
from skyctl.operations.admin import api_tokens, workers
from skyctl.operations.shared.context import Context
from tests.conftest import Process
from tests.support.helpers import PATIENCE_SECONDS, TESTS, add_worker, bearer

Serve = Callable[..., tuple[str, Process]]


class Stream:
    """The entries of a stream, one after the other; of what says that there is nothing, nothing."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()

    def next(self) -> dict[str, Any]:
        """The next entry. Raises StopIteration at the end."""
        entry: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                continue
            if not line and "event" not in entry:
                entry = {}  # the number alone
                continue
            if not line:
                return {"id": int(entry["id"]), "event": entry["event"], "data": json.loads(entry["data"])}
            field, _, value = line.partition(": ")
            entry[field] = value
        raise StopIteration


@pytest.fixture
def api(serve: Serve, context: Context) -> Iterator[httpx.Client]:
    _, token = api_tokens.create(context, TESTS, "reader", Role.VIEWER, None)
    with httpx.Client(base_url=serve()[0], headers=bearer(token), timeout=PATIENCE_SECONDS) as client:
        yield client


@contextmanager
def opened(api: httpx.Client, path: str, **headers: str) -> Iterator[Stream]:
    with api.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        yield Stream(answer)


def label(context: Context, worker_id: Any, pool: str) -> None:
    workers.label(context, worker_id, TESTS, {"pool": pool})


def test_events_come_and_go_on_after_the_last(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    worker_id, other_id = add_worker(connection, name="w1"), add_worker(connection, name="w2")
    label(context, worker_id, "a")
    with opened(api, "/api/events/stream?since=0") as stream:
        entries = [stream.next()]
        while entries[-1]["data"]["workerName"] != "w1":
            entries.append(stream.next())
        assert entries[-1]["id"] == entries[-1]["data"]["seq"]
        assert entries[-1]["event"] == entries[-1]["data"]["kind"]
        label(context, worker_id, "b")
        came = stream.next()
        assert came["id"] > entries[-1]["id"]
    label(context, other_id, "c")
    label(context, worker_id, "d")
    last = str(came["id"])
    with opened(api, "/api/events/stream?since=0", **{"Last-Event-ID": last}) as stream:
        assert [stream.next()["data"]["workerName"] for _ in range(2)] == ["w2", "w1"]
    with opened(api, f"/api/events/stream?since={last}&worker=w2") as stream:
        assert stream.next()["data"]["workerName"] == "w2"
    listed = api.get(f"/api/events?since={last}&worker=w1").json()["data"]["events"]
    assert [event["workerName"] for event in listed] == ["w1"]


def test_what_does_not_fit_is_read_once(api: httpx.Client, context: Context, connection: psycopg.Connection) -> None:
    """The number goes on all the same, so that nothing before is read again."""
    worker_id = add_worker(connection, name="w1")
    label(context, worker_id, "a")
    newest = api.get("/api/events?limit=1").json()["data"]["events"][0]["seq"]
    with api.stream("GET", "/api/events/stream?since=0&kind=mass_failure") as answer:
        assert next(line for line in answer.iter_lines() if line.startswith("id:")) == f"id: {newest}"


@pytest.mark.parametrize("log", ["events", "alerts"])
def test_a_number_of_a_database_that_was_put_back_is_told(api: httpx.Client, log: str) -> None:
    with opened(api, f"/api/{log}/stream", **{"Last-Event-ID": "1000000"}) as stream:
        assert stream.next()["event"] == "gone"


def test_nobody_takes_all_streams(api: httpx.Client) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_OF_ONE):
            stack.enter_context(opened(api, "/api/events/stream"))
        assert api.get("/api/events/stream").status_code == 503


def test_without_a_number_it_begins_with_what_comes(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    worker_id = add_worker(connection, name="w1")
    label(context, worker_id, "before")
    with opened(api, "/api/events/stream") as stream:
        label(context, worker_id, "after")
        assert "after" in json.dumps(stream.next()["data"])


def test_alerts_come_as_they_are_raised(api: httpx.Client, connection: psycopg.Connection) -> None:
    add = """
        WITH made AS (INSERT INTO worker_alerts (kind, title, message, metadata)
                      VALUES ('test', %s, 'm', '{}') RETURNING id)
        SELECT pg_notify('worker_alerts', id::text) FROM made
    """
    connection.execute(add, ["first"])
    with opened(api, "/api/alerts/stream") as stream:
        connection.execute(add, ["second"])
        assert stream.next()["data"]["title"] == "second"


def test_a_token_that_is_revoked_ends_its_streams(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    worker_id = add_worker(connection, name="w1")
    with opened(api, "/api/events/stream") as stream:
        api_tokens.revoke(context, TESTS, "reader")
        label(context, worker_id, "a")
        with pytest.raises(StopIteration):
            for _ in range(3):  # a read that was under way gives the two that have come
                stream.next()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_serve_ends_though_somebody_listens(serve: Serve, context: Context, processes: str) -> None:
    _, token = api_tokens.create(context, TESTS, "reader", Role.VIEWER, None)
    url, process = serve("--processes", processes)
    with (
        httpx.Client(base_url=url, headers=bearer(token), timeout=PATIENCE_SECONDS) as api,
        opened(api, "/api/events/stream") as stream,
    ):
        process.popen.terminate()
        with pytest.raises(StopIteration):
            stream.next()
        assert process.stop() == 0


def test_what_cannot_be_followed_is_said(api: httpx.Client) -> None:
    for path, status in (("since=x", 400), ("worker=none", 404), ("kind=never", 400)):
        assert api.get(f"/api/events/stream?{path}").status_code == status
