"""What anybody who reaches the port may not take from others: turns, threads, the log's lock, connections, the loop."""

import base64
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse
from uuid import uuid4

import httpx
import psycopg
import pytest

from skyctl import installer
from skyctl.domain.cluster import Invitation
from skyctl.operations.admin import workers
from skyctl.operations.agents import install_links, invitations
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from tests.conftest import SECRET, Process
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    REGISTRATION,
    TESTS,
    add_worker,
    admin_token,
    bearer,
    eventually,
    worker_token,
)

Serve = Callable[..., tuple[str, Process]]
FORGED_SECRET = "another-secret-that-is-long-enough-for-hs256"
BODY = json.dumps(LOAD).encode()
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
STRANGERS = 60


@pytest.fixture
def url(serve: Serve) -> httpx.URL:
    return httpx.URL(serve()[0])


@pytest.fixture
def invitation(context: Context) -> Invitation:
    return invitations.invite(context, TESTS)


@contextmanager
def connected(url: httpx.URL, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection((url.host, url.port or 80), PATIENCE_SECONDS, (address, 0)) as client:
        yield client


def answer(client: socket.socket) -> HTTPResponse:
    response = HTTPResponse(client)
    response.begin()
    return response


def beat(invitation: Invitation, body: bytes = BODY) -> bytes:
    head = f"POST /api/workers/{invitation.worker_id}/heartbeat HTTP/1.1\r\nHost: m\r\n"
    return f"{head}Authorization: Bearer {invitation.token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def nested_head() -> str:
    """A token whose head no reader of JSON should be given."""
    return base64.urlsafe_b64encode(b"[" * 1500 + b"]" * 1500).decode().rstrip("=") + ".e30.AAAA"


def test_a_forged_token_is_refused_before_the_log_and_before_its_body(
    url: httpx.URL, connection: psycopg.Connection, invitation: Invitation
) -> None:
    """While somebody holds the log's lock, and whoever has a good token waits for it."""
    revoked_id = uuid4()
    revoked = worker_token(SECRET, revoked_id)
    add_worker(connection, id=revoked_id, auth_token_hash="", token_revoked_at="now")
    with connection.transaction(), ExitStack() as stack:
        connection.execute("SELECT skyctl_lock_events()")
        for token in (worker_token(FORGED_SECRET, invitation.worker_id), nested_head(), "x" * 30_000):
            client = stack.enter_context(connected(url))
            head = f"POST /api/workers/register HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {token}\r\n"
            client.sendall(f"{head}Content-Length: 400\r\n\r\n".encode())
            assert answer(client).status == 401
        refused = httpx.post(
            url.join("/api/workers/register"), headers=bearer(revoked), json=REGISTRATION, timeout=PATIENCE_SECONDS
        )
        assert refused.status_code in (401, 403)


def test_nothing_of_a_long_heartbeat_is_read_for_whoever_has_no_good_token(
    url: httpx.URL, connection: psycopg.Connection, context: Context, invitation: Invitation
) -> None:
    """What a host may tell of its volumes takes far longer to read than a token."""
    revoked, removed = invitations.invite(context, TESTS), invitations.invite(context, TESTS)
    connection.execute("UPDATE container_workers SET auth_token_hash = '' WHERE id = %s", [revoked.worker_id])
    workers.remove(context, removed.worker_id, TESTS)
    path = f"/api/workers/{invitation.worker_id}/heartbeat"
    volumes = {"s" * 25: ["/" + "x" * 150] * 100}
    unreadable, odd = b"[" * 16_000, json.dumps(LOAD | {"imageVolumes": volumes | {"": []}}).encode()
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        for body in (unreadable, odd):
            for token in ("x", worker_token(FORGED_SECRET, invitation.worker_id), revoked.token):
                refused = client.post(path, headers=bearer(token), content=body)
                assert refused.status_code in (401, 403), refused.text
            for other in (revoked, removed):
                theirs = f"/api/workers/{other.worker_id}/heartbeat"
                assert client.post(theirs, headers=bearer(other.token), content=body).status_code in (401, 403)
            assert client.post(path, headers=bearer(invitation.token), content=body).status_code == 400
        told = client.post(path, headers=bearer(invitation.token), json=LOAD | {"imageVolumes": volumes})
        assert told.status_code == 200, told.text
    row = connection.execute("SELECT image_volumes FROM container_workers WHERE id = %s", [invitation.worker_id])
    assert row.fetchone() == (volumes,)


def test_strangers_have_threads_and_a_queue_of_their_own(
    url: httpx.URL, connection: psycopg.Connection, context: Context, database_url: str
) -> None:
    """Links whose worker somebody has locked: whoever fetches them waits, and nobody else does."""
    worker_id, link = install_links.invite(context, TESTS)
    path = httpx.URL(link).path
    admin = bearer(admin_token(SECRET, connection))
    with ExitStack() as stack, psycopg.connect(database_url) as other:
        other.execute("SELECT FROM container_workers WHERE id = %s FOR UPDATE", [worker_id])
        strangers = [stack.enter_context(connected(url)) for _ in range(STRANGERS)]
        for stranger in strangers:
            stranger.sendall(f"GET {path} HTTP/1.1\r\nHost: m\r\n\r\n".encode())
        eventually(lambda: (connection.execute(WAITING).fetchone() or (0,))[0])
        assert httpx.get(url.join("/readyz"), timeout=PATIENCE_SECONDS).status_code == 200
        listed = httpx.get(url.join("/api/workers"), headers=admin, timeout=PATIENCE_SECONDS)
        assert listed.json()["pagination"]["total"] == 1
        with connected(url, "127.0.0.2") as elsewhere:
            elsewhere.sendall(f"GET /install/check/{worker_id}/none HTTP/1.1\r\nHost: m\r\n\r\n".encode())
            assert answer(elsewhere).status == 200, "one address has not the turns of all strangers"
        answered = eventually(lambda: next(filter(has_said, strangers), None))
        assert answered
        refused = answer(answered)
        script = refused.read().decode()
        assert (refused.status, refused.getheader("Retry-After")) == (503, "2"), script
        assert "too many requests wait" in script
        assert script.startswith("#!/bin/sh")
        assert not all(map(has_said, strangers)), "the others wait in the queue"


def has_said(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.settimeout(PATIENCE_SECONDS)


def test_heads_of_many_fields_are_refused(url: httpx.URL, invitation: Invitation) -> None:
    fields = "".join(f"a{number}: b\r\n" for number in range(13_000))
    for path in ("/healthz", f"/api/workers/{invitation.worker_id}/heartbeat"):
        with connected(url) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: m\r\n{fields}\r\n".encode()[:60_000])
            refused = answer(client)
            assert refused.status == 400
            assert "over 100 fields" in json.loads(refused.read())["error"]["message"]


@pytest.mark.parametrize("endless", ["0\r\nX-A: ", "1;a="])
def test_what_follows_a_chunk_has_an_end(url: httpx.URL, invitation: Invitation, endless: str) -> None:
    """A trailer, and a chunk's extension: more than all buffers on the way hold is not taken."""
    for path in ("/healthz", f"/api/workers/{invitation.worker_id}/heartbeat"):
        with connected(url) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n{endless}".encode())
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                for _ in range(64):
                    client.sendall(b"a" * 2**20)
    with connected(url) as client:
        client.sendall(beat(invitation))
        assert answer(client).status == 200


def test_requests_that_wait_on_one_connection_have_an_end(url: httpx.URL) -> None:
    """Each is kept with all that belongs to it, so that one connection could fill the memory."""
    with connected(url) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: m\r\n\r\n" * 1000)
        assert b"too many requests wait on this connection" in everything(client)


def everything(client: socket.socket) -> bytes:
    """What comes until the other end closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while data := client.recv(65_536):
            received += data
    return received


def test_connections_that_show_nothing_make_place_for_others(
    environment: dict[str, str], invitation: Invitation
) -> None:
    command = ["bash", "-c", f"ulimit -n 330; exec {sys.executable} -m skyctl serve --port 0"]
    process = Process(command, environment)
    try:
        url = httpx.URL(process.until("listening on ").split("listening on ")[1].strip())
        with connected(url) as worker, ExitStack() as stack:
            worker.sendall(beat(invitation))
            assert answer(worker).status == 200
            for _ in range(400):
                stack.enter_context(connected(url))
            worker.sendall(beat(invitation))
            assert answer(worker).status == 200, "it has shown a good token, and keeps its connection"
            with connected(url) as another:
                another.sendall(beat(invitation))
                assert answer(another).status == 200
    finally:
        assert process.stop() == 0
        process.popen.stderr.close()  # type: ignore[union-attr]
    assert not [line for line in process.seen if "Too many open files" in line]


@pytest.mark.parametrize("is_removed", [True, False])
def test_the_connections_of_one_worker_keep_no_other_out(
    environment: dict[str, str], context: Context, invitation: Invitation, is_removed: bool
) -> None:
    """One that was removed and has its token still, and one that holds all the connections that it can."""
    other = invitations.invite(context, TESTS)
    command = ["bash", "-c", f"ulimit -n 330; exec {sys.executable} -m skyctl serve --port 0"]
    process = Process(command, environment)
    try:
        url = httpx.URL(process.until("listening on ").split("listening on ")[1].strip())
        with connected(url) as client:  # which reads the keys
            client.sendall(fetch(invitation))
            assert answer(client).status == 404
        if is_removed:
            workers.remove(context, invitation.worker_id, TESTS)
        with ExitStack() as stack:
            for _ in range(80):
                client = stack.enter_context(connected(url))
                client.sendall(fetch(invitation) if is_removed else beat(invitation))
                assert answer(client).status == (401 if is_removed else 200)
            for _ in range(2):
                worker = stack.enter_context(connected(url))
                worker.sendall(beat(other))
                assert answer(worker).status == 200
    finally:
        assert process.stop() == 0
        process.popen.stderr.close()  # type: ignore[union-attr]


def fetch(invitation: Invitation) -> bytes:
    return f"GET /api/agent/x HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {invitation.token}\r\n\r\n".encode()


def test_a_worker_registers_only_so_often(
    url: httpx.URL, connection: psycopg.Connection, context: Context, invitation: Invitation
) -> None:
    other = invitations.invite(context, TESTS)
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:

        def register(token: str, number: int) -> httpx.Response:
            document = REGISTRATION | {"hostname": f"host-{number}"}
            return client.post("/api/workers/register", headers=bearer(token), json=document)

        answers = [register(invitation.token, number) for number in range(60)]
        statuses = [each.status_code for each in answers]
        assert set(statuses) == {201, 429}
        refused = answers[statuses.index(429)]
        assert refused.json()["error"]["code"] == "TOO_OFTEN"
        assert int(refused.headers["Retry-After"]) > 0
        assert register(other.token, 0).status_code == 201, "another worker notices nothing"
    query = "SELECT count(*) FROM worker_events WHERE kind = 'registered' AND worker_id = %s"
    assert connection.execute(query, [invitation.worker_id]).fetchone() == (statuses.count(201),)


def test_a_worker_counts_as_one_however_many_tokens_it_has(url: httpx.URL, invitation: Invitation) -> None:
    now = datetime.now(UTC)
    former = [
        tokens.issue_worker_token(SECRET, invitation.worker_id, "tests", now - timedelta(days=days))[0]
        for days in range(30)
    ]
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        statuses = {
            client.post("/api/workers/register", headers=bearer(token), json=REGISTRATION).status_code
            for token in former
        }
    assert statuses == {401, 429}


def test_what_is_refused_of_a_registration_counts_and_waits_for_nobody(
    url: httpx.URL, connection: psycopg.Connection, invitation: Invitation
) -> None:
    """Metadata that grows too large: a worker with as much from before registers all the same."""
    grows, stays = (REGISTRATION | {"metadata": {key: "x" * 7_000}} for key in ("k9", "k1"))
    kept = json.dumps({f"k{number}": "x" * 7_000 for number in range(3)})
    with httpx.Client(base_url=url, headers=bearer(invitation.token), timeout=PATIENCE_SECONDS) as client:
        connection.execute("UPDATE container_workers SET metadata = %s", [kept])
        assert client.post("/api/workers/register", json=stays).status_code == 201
        with connection.transaction():
            connection.execute("SELECT skyctl_lock_events()")
            statuses = [client.post("/api/workers/register", json=grows).status_code for _ in range(60)]
    assert set(statuses) == {400, 429}


def test_an_administrator_is_not_told_to_invite_anybody(url: httpx.URL, invitation: Invitation) -> None:
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        client.post("/api/workers/register", headers=bearer(invitation.token), json=REGISTRATION)
        refused = client.get("/api/workers", headers=bearer(worker_token(FORGED_SECRET, invitation.worker_id)))
    assert refused.status_code == 401
    assert "sign in to the panel" in refused.json()["error"]["message"]


def test_what_a_worker_says_of_itself_has_a_limit(
    url: httpx.URL, connection: psycopg.Connection, invitation: Invitation
) -> None:
    with httpx.Client(base_url=url, headers=bearer(invitation.token), timeout=PATIENCE_SECONDS) as client:
        large = client.post("/api/workers/register", json=REGISTRATION | {"metadata": {"a": "x" * 17_000}})
        assert large.status_code == 400
        assert "metadata" in large.json()["error"]["message"]
        for number in range(3):
            more = client.post("/api/workers/register", json=REGISTRATION | {"metadata": {f"k{number}": "x" * 7_000}})
        assert more.status_code == 400, "nor by many small ones"
    row = connection.execute("SELECT length(metadata::text) FROM container_workers").fetchone()
    assert row and row[0] < 16_384


def test_figures_that_no_sum_can_hold(url: httpx.URL, connection: psycopg.Connection, invitation: Invitation) -> None:
    """As hosts send them, and as the panel's agents may have stored them."""
    stored = {"cpuCores": 1e-320, "memoryMb": 1e-200, "diskGb": 1e-310}
    tiny = {"cpuPercent": 1e-320, "memoryPercent": 5e-324, "diskPercent": 1e-200, "containerCount": 1}
    for _ in range(2):
        add_worker(connection, status="active", capacity=json.dumps(stored), current_load=json.dumps(tiny))
    with httpx.Client(base_url=url, headers=bearer(invitation.token), timeout=PATIENCE_SECONDS) as client:
        for field in stored:
            capacity = {"cpuCores": 1, "memoryMb": 1, "diskGb": 1, field: 1e-320}
            refused = client.post("/api/workers/register", json=REGISTRATION | {"capacity": capacity})
            assert refused.status_code == 400
            assert field in refused.json()["error"]["message"]
        assert client.post(f"/api/workers/{invitation.worker_id}/heartbeat", json=tiny).status_code == 200
        found = client.get("/api/workers/cluster/status", headers=bearer(admin_token(SECRET, connection)))
        assert found.json()["data"]["averageLoad"]["cpuPercent"] == 0
    row = connection.execute("SELECT current_load FROM container_workers WHERE id = %s", [invitation.worker_id])
    assert row.fetchone() == ({"cpuPercent": 0, "memoryPercent": 0, "diskPercent": 0, "containerCount": 1},)


def test_the_agent_is_packed_once() -> None:
    assert installer.agent_archive() is installer.agent_archive()
