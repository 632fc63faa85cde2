"""The fast path for heartbeats, asked over raw sockets as real and as careless clients do."""

import json
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPResponse
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from skyctl.domain.cluster import Invitation
from skyctl.host import admin_socket
from skyctl.host.certificates import Certificates
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Process
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    TESTS,
    add_worker,
    admin_token,
    eventually,
    get,
    metrics,
    ready,
)

Serve = Callable[..., tuple[str, Process]]
BODY = json.dumps(LOAD).encode()


@pytest.fixture
def invitation(context: Context) -> Invitation:
    return invitations.invite(context, TESTS)


@pytest.fixture
def url(serve: Serve) -> httpx.URL:
    return httpx.URL(serve()[0])


@contextmanager
def connected(url: httpx.URL, receives: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as client:
        client.settimeout(PATIENCE_SECONDS)
        if receives:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        client.connect((url.host, url.port or 80))
        yield client


def is_gone(server: psutil.Process, port: int) -> bool:
    return port not in {each.raddr.port for each in server.net_connections("tcp") if each.raddr}


def authorization(connection: psycopg.Connection) -> str:
    return f"Authorization: Bearer {admin_token(SECRET, connection)}\r\n"


def request(
    invitation: Invitation, *, query: str = "", version: str = "1.1", headers: str = "", body: bytes | None = BODY
) -> bytes:
    head = (
        f"POST /api/workers/{invitation.worker_id}/heartbeat{query} HTTP/{version}\r\nHost: manager\r\n"
        f"Authorization: Bearer {invitation.token}\r\n{headers}"
    )
    return head.encode() + (b"" if body is None else b"Content-Length: %d\r\n\r\n" % len(body) + body)


def answer(client: socket.socket) -> HTTPResponse:
    response = HTTPResponse(client)
    response.begin()
    document = json.loads(response.read())
    assert document["success"] is (response.status == 200)
    return response


def accepted(url: httpx.URL) -> float:
    """Heartbeats that were answered with 200 by the fast path."""
    lines = metrics(url).splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith('skyctl_heartbeats_total{outcome="accepted"}')
    )


def test_a_connection_is_kept_and_used_again(url: httpx.URL, invitation: Invitation) -> None:
    with connected(url) as client:
        for _ in range(3):
            client.sendall(request(invitation))
            assert answer(client).status == 200
    assert accepted(url) == 3, "the end of a connection is no beat"


@pytest.mark.parametrize(("version", "headers"), [("1.1", "Connection: close\r\n"), ("1.0", "")])
def test_who_does_not_keep_the_connection(url: httpx.URL, invitation: Invitation, version: str, headers: str) -> None:
    with connected(url) as client:
        client.sendall(request(invitation, version=version, headers=headers))
        response = answer(client)
        assert (response.status, response.getheader("Connection")) == (200, "close")
        assert client.recv(1) == b""
    assert accepted(url) == 1


def test_a_beat_in_pieces(url: httpx.URL, invitation: Invitation) -> None:
    with connected(url) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in request(invitation):
            client.sendall(bytes([piece]))
        assert answer(client).status == 200
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])) + b"0\r\n\r\n"
        client.sendall(request(invitation, headers="Transfer-Encoding: chunked\r\n\r\n", body=None) + chunks)
        assert answer(client).status == 200
    assert accepted(url) == 2


@pytest.mark.parametrize("first", ["beat", "other"])
def test_requests_that_do_not_wait_for_their_answers(url: httpx.URL, invitation: Invitation, first: str) -> None:
    """The answers come in the order of the requests; beats that stand behind another request go the ordinary way."""
    other = b"GET /healthz HTTP/1.1\r\nHost: manager\r\n\r\n"
    beats = [request(invitation), request(invitation, body=b"{}")]
    with connected(url) as client:
        client.sendall(b"".join([*beats, other] if first == "beat" else [other, *beats]))
        stream = client.makefile("rb")
        statuses = []
        for _ in range(3):
            statuses.append(int(stream.readline().split()[1]))
            head = dict(line.rstrip().split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
            stream.read(int(head[b"content-length"]))
    assert statuses == ([200, 400, 200] if first == "beat" else [200, 200, 400])


def test_a_beat_with_a_query_or_an_expectation_is_a_beat(
    url: httpx.URL, invitation: Invitation, connection: psycopg.Connection
) -> None:
    with connected(url) as client:
        client.sendall(request(invitation, query="?from=somewhere"))
        assert answer(client).status == 200
        client.sendall(request(invitation, headers="Expect: 100-continue\r\n", body=BODY)[: -len(BODY)])
        interim = client.recv(len(b"HTTP/1.1 100 Continue\r\n\r\n"), socket.MSG_WAITALL)
        assert interim.startswith(b"HTTP/1.1 100")
        client.sendall(BODY)
        assert answer(client).status == 200
        client.sendall(request(invitation, query="?x", body=b'{"cpuPercent": 1}'))
        assert answer(client).status == 400
        client.sendall(request(invitation, query="?x").replace(invitation.token.encode(), b"nonsense"))
        assert answer(client).status == 401
    row = connection.execute("SELECT current_load FROM container_workers WHERE id = %s", (invitation.worker_id,))
    assert row.fetchone() == (LOAD,)


def test_a_body_over_the_limit_costs_nothing_but_its_own_answer(url: httpx.URL, invitation: Invitation) -> None:
    with connected(url) as client:
        client.sendall(request(invitation, body=b" " * 200_000))
        assert answer(client).status == 413
        client.sendall(request(invitation))
        assert answer(client).status == 200


def test_clients_that_leave_before_their_answer(url: httpx.URL, invitation: Invitation) -> None:
    for _ in range(20):
        with connected(url) as client:
            client.sendall(request(invitation))
        with connected(url) as client:
            client.sendall(request(invitation)[:-5])
    with connected(url) as client:
        client.sendall(request(invitation))
        assert answer(client).status == 200


def test_a_client_that_never_reads_is_let_go(url: httpx.URL, invitation: Invitation) -> None:
    """It may fill what the two ends buffer, and no more: then the connection is closed."""
    wrong = request(invitation, body=b"{}")
    with connected(url) as client, pytest.raises((ConnectionResetError, BrokenPipeError)):
        for _ in range(1_000_000):
            client.sendall(wrong)
    with connected(url) as client:
        client.sendall(request(invitation))
        assert answer(client).status == 200


def test_a_head_without_end_is_refused(url: httpx.URL) -> None:
    with connected(url) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 70_000)
        assert answer(client).status == 400


def test_what_is_not_http_gets_the_one_shape_of_errors(url: httpx.URL) -> None:
    with connected(url) as client:
        client.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert answer(client).status == 400


def test_who_says_nothing_or_half_or_does_not_read_is_let_go(
    serve: Serve, connection: psycopg.Connection, invitation: Invitation, tmp_path: Path
) -> None:
    """Whether it speaks TLS or not, or asks by the socket of the machine."""
    plain, one = serve()
    ours = Certificates(tmp_path / "data")
    ours.make(["127.0.0.1"], datetime.now(UTC))
    encrypted, other = serve()
    for _ in range(300):
        add_worker(connection)
    listing = f"GET /api/workers?limit=1000 HTTP/1.1\r\nHost: m\r\n{authorization(connection)}\r\n".encode() * 15
    trusts = ssl.create_default_context(cafile=str(ours.authority))
    with (
        connected(httpx.URL(plain)) as silent,
        connected(httpx.URL(plain)) as half,
        connected(httpx.URL(plain), receives=4096) as reads_nothing,
        connected(httpx.URL(encrypted), receives=4096) as tcp,
        trusts.wrap_socket(tcp, server_hostname="127.0.0.1") as reads_none_of_tls,
        socket.socket(socket.AF_UNIX) as reads_nothing_here,
    ):
        reads_nothing_here.connect(str(admin_socket.path(tmp_path / "data")))
        half.sendall(request(invitation)[:-3])
        for client in (reads_nothing, reads_none_of_tls, reads_nothing_here):
            client.sendall(listing)
        assert silent.recv(1) == b""
        assert half.recv(1) == b""
        for process, client in ((one, reads_nothing), (other, reads_none_of_tls)):
            eventually(partial(is_gone, psutil.Process(process.popen.pid), client.getsockname()[1]))
        left = select.poll()
        left.register(reads_nothing_here, 0)
        assert left.poll(PATIENCE_SECONDS * 1000) == [(reads_nothing_here.fileno(), select.POLLHUP)]
    assert one.stop() == 0
    assert "Traceback" not in "".join(one.seen)


@pytest.mark.parametrize("stray", [b"\x01", b"POST x HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_cannot_be_read_after_others_leaves_no_traceback(serve: Serve, stray: bytes) -> None:
    address, process = serve()
    whole = b"GET /readyz HTTP/1.1\r\nHost: m\r\n\r\n"
    for before in (1, 2, 5):
        for _ in range(5):
            with connected(httpx.URL(address)) as client:
                client.sendall(whole * before + stray)
                while client.recv(65536):
                    pass
    assert process.stop() == 0
    assert "Traceback" not in "".join(process.seen)


def test_half_a_beat_does_not_hold_the_end(serve: Serve, invitation: Invitation) -> None:
    address, process = serve()
    with connected(httpx.URL(address)) as client:
        client.sendall(request(invitation))
        assert answer(client).status == 200
        client.sendall(request(invitation)[:-3])
        assert ready(address)
        process.popen.terminate()
        assert client.recv(1) == b""
    assert process.popen.wait(PATIENCE_SECONDS) == 0


def test_half_a_request_of_an_administrator_does_nothing(url: httpx.URL, connection: psycopg.Connection) -> None:
    token = admin_token(SECRET, connection)
    with connected(url) as client:
        head = f"POST /api/workers/generate-script HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {token}\r\n"
        client.sendall(head.encode() + b"Content-Length: 50\r\n\r\n{")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert get(url.join("/readyz")).status_code == 200
    assert connection.execute("SELECT count(*) FROM container_workers").fetchone() == (0,)
