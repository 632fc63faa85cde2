"""Whatever is sent, the answer is a 4xx that names the field, and nothing is written."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, REGISTRATION, TESTS, bearer, worker_token

MISSING = object()
TEXTS = st.text(max_size=20)
NOT_NUMBERS = st.sampled_from([None, True, False, "", "45", [], {}, [1], {"a": 1}]) | TEXTS
NOT_FINITE = st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e999])
PERCENTS = NOT_NUMBERS | NOT_FINITE | st.floats(max_value=-0.001) | st.floats(min_value=100.001) | st.integers(101)
COUNTS = NOT_NUMBERS | NOT_FINITE | st.integers(max_value=-1) | st.integers(min_value=2**31) | st.just(1.5)
NESTED = json.loads("[" * 60 + "]" * 60)
NOT_TEXTS: st.SearchStrategy[Any] = st.sampled_from([None, True, 7, 1.5, [], {}, "", "  ", "a\0b", "x" * 256, "\ud800"])
ADDRESSES = st.sampled_from(
    [None, 7, "", "1.2.3", "1.2.3.4/24", "1.2.3.256", "localhost", "fe80::1%eth0", "\0", "::g", "x" * 9000]
)
METADATA = st.sampled_from([None, 7, "x", [], [{}], {"a": "\0"}, {"\0": 1}, {"a": "\ud800"}, {"a": NESTED}])


def amounts(limit: int) -> st.SearchStrategy[Any]:
    return (
        NOT_NUMBERS | NOT_FINITE | st.floats(max_value=0) | st.integers(max_value=0) | st.integers(min_value=limit + 1)
    )


HEARTBEAT = {"cpuPercent": PERCENTS, "memoryPercent": PERCENTS, "diskPercent": PERCENTS, "containerCount": COUNTS}
REGISTER = {
    "hostname": NOT_TEXTS,
    "ipAddress": ADDRESSES,
    "metadata": METADATA,
    "capacity": NOT_NUMBERS.filter(lambda v: v != {}),
    "capacity.cpuCores": amounts(4096),
    "capacity.memoryMb": amounts(64 * 1024**2),
    "capacity.diskGb": amounts(16 * 1024**2),
}


@pytest.fixture
def door(serve: Callable[..., tuple[str, Process]], context: Context) -> Iterator[tuple[httpx.Client, str]]:
    """A client with a good token, and the path of that worker's heartbeat."""
    invitation = invitations.invite(context, TESTS)
    with httpx.Client(base_url=serve()[0], headers=bearer(invitation.token), timeout=PATIENCE_SECONDS) as client:
        yield client, f"/api/workers/{invitation.worker_id}/heartbeat"


def changed(document: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """The document with one field set, or gone."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    *parents, last = field.split(".")
    inner = copy[parents[0]] if parents else copy
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return copy


def assert_refused(client: httpx.Client, path: str, body: bytes, field: str) -> None:
    # each registration is of another worker, since one registers only so often
    by = bearer(worker_token(SECRET, uuid4())) if path.endswith("/register") else {}
    response = client.post(path, content=body, headers=by)
    assert response.status_code == 400, (response.status_code, body[:200])
    error = response.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert field in error["message"], (field, error)


def untouched(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT last_heartbeat_at, hostname, metadata FROM container_workers").fetchone()
    return row == (None, "", {})


QUIETLY = settings(max_examples=40)


@pytest.mark.parametrize("field", HEARTBEAT)
def test_each_field_of_a_heartbeat(door: tuple[httpx.Client, str], connection: psycopg.Connection, field: str) -> None:
    client, path = door

    @QUIETLY
    @given(st.just(MISSING) | HEARTBEAT[field])
    def check(value: Any) -> None:
        # Python writes NaN and Infinity as a careless client would
        body = json.dumps(changed(LOAD, field, value)).encode()
        assert_refused(client, path, body, field)

    check()
    assert untouched(connection)


@pytest.mark.parametrize("field", REGISTER)
def test_each_field_of_a_registration(
    door: tuple[httpx.Client, str], connection: psycopg.Connection, field: str
) -> None:
    client, _ = door
    optional = field == "metadata"

    @QUIETLY
    @given(REGISTER[field] if optional else st.just(MISSING) | REGISTER[field])
    def check(value: Any) -> None:
        body = json.dumps(changed(REGISTRATION, field, value)).encode()
        assert_refused(client, "/api/workers/register", body, field)

    check()
    assert untouched(connection)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b'"x"',
        b"null",
        b"{",
        b"\xff\xfe{}",
        b'{"cpuPercent": "\xff"}',
        b"[" * 16_000,
        b'{"a":' * 2_500 + b"1" + b"}" * 2_500,
        b'{"cpuPercent": ' + b"9" * 5_000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"cpuPercent": 1e999}',
        b"\0" * 100,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_bodies_that_are_no_document(
    door: tuple[httpx.Client, str], connection: psycopg.Connection, body: bytes
) -> None:
    client, path = door
    for route in (path, "/api/workers/register"):
        response = client.post(route, content=body)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "VALIDATION_ERROR"
    assert untouched(connection)


def test_a_megabyte(door: tuple[httpx.Client, str], connection: psycopg.Connection) -> None:
    client, path = door
    body = json.dumps(LOAD | {"padding": "x" * 1024 * 1024}).encode()
    for route in (path, "/api/workers/register"):
        assert client.post(route, content=body).status_code == 413
    assert untouched(connection)


def test_unknown_fields_are_ignored_and_odd_names_kept(
    door: tuple[httpx.Client, str], connection: psycopg.Connection
) -> None:
    client, path = door
    assert client.post(path, json=LOAD | {"uptime": 5, "x": None}).status_code == 200
    name = "o'brien\"; DROP TABLE users; --" + "🛰" * 200
    assert client.post("/api/workers/register", json=REGISTRATION | {"hostname": name, "extra": []}).status_code == 201
    kept = connection.execute("SELECT metadata ->> 'reportedHostname' FROM container_workers").fetchone()
    assert kept == (name,)


@settings(max_examples=150)
@given(body=st.binary(max_size=300) | st.recursive(NOT_NUMBERS, st.lists).map(lambda value: json.dumps(value).encode()))
def test_no_body_is_anything_but_4xx(door: tuple[httpx.Client, str], body: bytes) -> None:
    client, path = door
    for route in (path, "/api/workers/register"):
        assert 400 <= client.post(route, content=body).status_code < 500


@pytest.mark.parametrize("value", ["a\x1b[31mb", "two\nlines", "\x9b31m", "\u2028"])
def test_what_would_make_a_terminal_do_something_is_no_name(door: tuple[httpx.Client, str], value: str) -> None:
    assert_refused(
        door[0], "/api/workers/register", json.dumps(REGISTRATION | {"hostname": value}).encode(), "hostname"
    )


@pytest.mark.parametrize("depth", [1, 40, 900, 1000, 1020])
def test_a_value_nested_so_deep(door: tuple[httpx.Client, str], depth: int) -> None:
    client, path = door
    nested = b"[" * depth + b"1" + b"]" * depth
    for where, fields in ((path, HEARTBEAT), ("/api/workers/register", REGISTER)):
        document = LOAD if where == path else REGISTRATION
        for field in fields:
            if "." not in field:
                others = json.dumps({key: value for key, value in document.items() if key != field})[:-1].encode()
                assert_refused(client, where, others + b', "%b": %b}' % (field.encode(), nested), field)


def test_a_swarm_node_id_that_no_column_holds(door: tuple[httpx.Client, str]) -> None:
    for node in ("n" * 256, 7, ["n"]):
        body = json.dumps(REGISTRATION | {"metadata": {"swarmNodeId": node}}).encode()
        assert_refused(door[0], "/api/workers/register", body, "swarmNodeId")
