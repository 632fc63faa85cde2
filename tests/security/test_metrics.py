"""Metrics and the document of the API are for those who shall have them, and no answer is kept on its way."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest

from skyctl.host import metrics_port
from skyctl.operations.admin import tokens as token_operations
from skyctl.operations.agents import install_links, invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Cli, Process
from tests.support.helpers import (
    LOAD,
    METRICS_TOKEN,
    PATIENCE_SECONDS,
    REGISTRATION,
    TESTS,
    add_worker,
    admin_token,
    bearer,
    eventually,
)

Serve = Callable[..., tuple[str, Process]]
Start = Callable[..., Process]


@pytest.fixture
def api(serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as client:
        yield client


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def status(client: socket.socket) -> int:
    """The status of an answer; 0 where the connection was ended without one."""
    try:
        response = HTTPResponse(client)
        response.begin()
    except (OSError, HTTPException):
        return 0
    return response.status


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
def test_not_anybody_reads_metrics_and_document(
    api: httpx.Client, connection: psycopg.Connection, context: Context, path: str
) -> None:
    worker = invitations.invite(context, TESTS).token
    user, administrator = (admin_token(SECRET, connection, role) for role in ("user", "admin"))
    expected = {"": 401, "nobody": 401, METRICS_TOKEN[:-1]: 401, "é": 401, worker: 403, user: 403, administrator: 200}
    expected[METRICS_TOKEN] = 200 if path == "/metrics" else 401
    for token, code in expected.items():
        said = {"X-Forwarded-For": "127.0.0.1"} | (bearer(token) if token else {})
        answer = api.get(path, headers=httpx.Headers(said, encoding="latin-1"))
        assert (token, answer.status_code) == (token, code)
        assert ("skyctl_heartbeats" in answer.text or "openapi" in answer.text) is (code == 200)
    assert api.get("/api/workers", headers=bearer(METRICS_TOKEN)).status_code == 401, "it is for the metrics alone"


def test_prometheus_is_answered_while_the_database_is_away(serve: Serve) -> None:
    away = "postgresql://nobody@127.0.0.1:9/none"
    url, _ = serve(SKYCTL_DATABASE_URL=away)
    assert httpx.get(f"{url}/metrics", headers=bearer(METRICS_TOKEN), timeout=PATIENCE_SECONDS).status_code == 200


def test_a_token_of_the_metrics_that_can_be_guessed_is_refused(cli: Cli) -> None:
    refused = cli("doctor", SKYCTL_METRICS_TOKEN="prometheus")
    assert (refused.returncode, "SKYCTL_METRICS_TOKEN" in refused.stderr) == (2, True)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_port_of_the_metrics_is_of_this_machine_alone(serve: Serve, cli: Cli, processes: str) -> None:
    port = free_port()
    url, process = serve("--processes", processes, "--metrics-port", str(port))
    assert httpx.get(f"{url}/healthz", timeout=PATIENCE_SECONDS).status_code == 200
    text = eventually(lambda: scraped(port))
    assert "skyctl_heartbeats" in text
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))
    refused = cli("serve", "--port", "0", "--metrics-port", str(port))
    assert (refused.returncode, "--metrics-port" in refused.stderr) == (4, True)
    assert cli("serve", "--port", "0", "--metrics-port", "9464", "--metrics-host", "192.0.2.1").returncode == 2
    assert process.stop() == 0


def scraped(port: int) -> str:
    """What the port says, once it listens and has something to say."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS)
    except httpx.TransportError:
        return ""
    return answer.text if answer.status_code == 200 else ""


HEADS = {
    "13,000 fields": b"GET /metrics HTTP/1.1\r\n" + b"a:b\r\n" * 13_000 + b"\r\n",
    "no end": b"GET /metrics HTTP/1.1\r\n" + b"x" * 100_000,
    "garbage": bytes(range(256)) * 8 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "no version": b"GET /metrics\r\n\r\n",
    "another path": b"GET /debug HTTP/1.1\r\n\r\n",
    "another method": b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345",
}


@pytest.mark.parametrize("command", ["monitor", "serve"])
def test_whoever_idles_or_sends_garbage_stops_no_scrape(start: Start, command: str) -> None:
    port = free_port()
    more = ("--port", "0") if command == "serve" else ("--interval", "3600")
    process = start(command, *more, "--metrics-port", str(port))
    assert eventually(lambda: scraped(port))
    before = threads(process)
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(port)) for _ in range(200)]
        for number, client in enumerate(idle):
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        assert scraped(port)
        assert threads(process) - before < 10, "none of them has a thread of its own"
        for client in idle[: -metrics_port.MOST_CONNECTIONS]:
            assert status(client) == 0, "the oldest made room"
        for name, head in HEADS.items():
            with connect(port) as client:
                with suppress(OSError):  # it may be ended meanwhile
                    client.sendall(head)
                    client.shutdown(socket.SHUT_WR)
                assert status(client) in (0, 404, 431), name
        assert scraped(port)
        for client in idle:
            assert status(client) == 0, "and time ends the others"
    assert process.stop() == 0
    assert not [line for line in process.seen if "Traceback" in line or "rror" in line]


def threads(process: Process) -> int:
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


def test_a_scrape_that_takes_its_time_is_answered_whole() -> None:
    text = b"x" * 3_000_000
    port, before = free_port(), threading.active_count()
    metrics_port.publish("127.0.0.1", port, lambda: text, "text/plain")
    with connect(port) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
        client.sendall(b"Host: x\r\n\r\n")
        response = HTTPResponse(client)
        response.begin()
        assert response.read() == text
    assert threading.active_count() - before < 10


def test_what_cannot_be_rendered_ends_nothing() -> None:
    port, failing = free_port(), [True]

    def render() -> bytes:
        if failing:
            raise ValueError(failing.pop())
        return b"skyctl 1\n"

    metrics_port.publish("127.0.0.1", port, render, "text/plain")
    with connect(port) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert status(client) == 500
    assert scraped(port) == "skyctl 1\n"


@pytest.mark.parametrize("head", ["13,000 fields", "garbage", "no end", "TLS"])
def test_heads_of_too_many_fields_or_none_stop_no_serve(api: httpx.Client, head: str) -> None:
    where = urlsplit(str(api.base_url))
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(connect(where.port or 0))
            with suppress(OSError):  # it may be ended meanwhile
                client.sendall(HEADS[head].replace(b"/metrics", b"/api/workers"))
            if head != "TLS":
                assert status(client) in (0, 400, 401)
        assert api.get("/readyz").status_code == 200


def test_no_answer_with_a_secret_is_kept_on_its_way(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    administrator = bearer(admin_token(SECRET, connection))
    scripted = api.post("/api/workers/generate-script", headers=administrator, json={})
    link = urlsplit(install_links.make(context, TESTS, invitations.invite(context, TESTS).worker_id, insecure=False))
    one = invitations.invite(context, TESTS)
    body = REGISTRATION | {"metadata": {"takesTokens": True}}
    registered = api.post("/api/workers/register", headers=bearer(one.token), json=body)
    token_operations.rotate(context, one.worker_id, TESTS)
    path = f"/api/workers/{one.worker_id}/heartbeat"
    answers = {
        "script and token": (scripted, 200, "token"),
        "script": (api.get(link.path), 200, "#!/bin/sh"),
        "used link": (api.get(link.path), 410, "has been used"),
        "registration": (registered, 201, "success"),
        "new token": (api.post(path, headers=bearer(one.token), json=LOAD), 200, "newToken"),
        "new token, the other way": (api.post(f"{path}?x=1", headers=bearer(one.token), json=LOAD), 200, "newToken"),
        "workers": (api.get("/api/workers", headers=administrator), 200, "data"),
        "a refusal": (api.post(path, headers=bearer("t"), json=LOAD), 401, "UNAUTHORIZED"),
        "nobody": (api.get(f"/api/workers/{uuid4()}"), 401, "UNAUTHORIZED"),
    }
    for name, (answer, code, text) in answers.items():
        assert (answer.status_code, text in answer.text) == (code, True), name
        assert answer.headers.get_list("Cache-Control") == ["no-store"], name


def test_the_document_says_who_may_read_it(api: httpx.Client, connection: psycopg.Connection) -> None:
    add_worker(connection)
    document = json.loads(api.get("/openapi.json", headers=bearer(admin_token(SECRET, connection))).text)
    seeing: list[dict[str, list[str]]] = [{"adminToken": []}, {"apiToken": ["viewer"]}]
    assert document["paths"]["/metrics"]["get"]["security"] == [*seeing, {"metricsToken": []}]
    assert document["paths"]["/openapi.json"]["get"]["security"] == seeing
