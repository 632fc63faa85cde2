"""The HTTP contract, asked over real sockets of a real `skyctl serve` on a real database."""

import asyncio
import json
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest

from skyctl.domain.cluster import Heartbeat, Load
from skyctl.domain.errors import DatabaseUnavailable, Refused
from skyctl.operations.admin import workers
from skyctl.operations.agents import heartbeats, invitations
from skyctl.operations.agents.registration import register
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from skyctl.store import db
from skyctl.store.tables import SCHEMA_VERSION
from tests.conftest import SECRET, Cli, Process
from tests.support.certificates import authority
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    REGISTRATION,
    TESTS,
    add_worker,
    admin_token,
    bearer,
    eventually,
    metrics,
    registration,
    worker_token,
)

Serve = Callable[..., tuple[str, Process]]


@pytest.fixture
def api(serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def admin(connection: psycopg.Connection) -> dict[str, str]:
    return bearer(admin_token(SECRET, connection))


def beat(api: httpx.Client, worker_id: object, token: str, load: object = None) -> httpx.Response:
    return api.post(f"/api/workers/{worker_id}/heartbeat", headers=bearer(token), json=LOAD if load is None else load)


def error_code(response: httpx.Response) -> str:
    body = response.json()
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message"}
    return str(body["error"]["code"])


def heard(connection: psycopg.Connection, worker_id: object) -> object:
    row = connection.execute("SELECT last_heartbeat_at FROM container_workers WHERE id = %s", (worker_id,)).fetchone()
    return row[0] if row else None


def test_a_host_joins_beats_and_is_seen(api: httpx.Client, admin: dict[str, str]) -> None:
    script = api.post("/api/workers/generate-script", headers=admin, json={"name": "first"})
    assert script.status_code == 200
    data = script.json()["data"]
    assert data["token"] in data["script"]
    worker_id = data["workerId"]
    listed = api.get("/api/workers", headers=admin).json()
    assert [(worker["name"], worker["status"]) for worker in listed["data"]] == [("first", "pending")]

    registered = api.post("/api/workers/register", headers=bearer(data["token"]), json=REGISTRATION)
    assert registered.status_code == 201
    document = registered.json()["data"]
    assert (document["id"], document["name"], document["hostname"]) == (worker_id, "first", "worker-1")
    assert document["capacity"] == REGISTRATION["capacity"]
    assert document["metadata"] == REGISTRATION["metadata"]
    assert "hash" not in registered.text.lower()
    assert data["token"] not in registered.text

    answer = beat(api, worker_id, data["token"])
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "message": "Heartbeat received", "nextHeartbeatSeconds": 30.0}
    shown = api.get(f"/api/workers/{worker_id}", headers=admin).json()["data"]
    assert shown["currentLoad"] == LOAD
    assert datetime.fromisoformat(shown["lastHeartbeatAt"]).tzinfo is not None
    assert shown["status"] == "pending", "a heartbeat concludes nothing"


def test_the_panels_agent_works_unchanged(api: httpx.Client, connection: psycopg.Connection) -> None:
    """Heartbeats only, never a registration, 200 the only success; the row and the token are the panel's."""
    worker_id = uuid4()
    token = jwt.encode({"workerId": str(worker_id), "type": "worker", "generatedBy": "u", "generatedAt": 1}, SECRET)
    connection.execute(
        "INSERT INTO container_workers (id, name, hostname, ip_address, auth_token_hash, current_load) "
        "VALUES (%s, 'w', 'h', '10.0.0.1', %s, %s)",
        (worker_id, tokens.fingerprint(token), json.dumps({"cpu_percent": 1, "memory_percent": 2})),
    )
    assert beat(api, worker_id, token).status_code == 200
    row = connection.execute("SELECT current_load, last_heartbeat_at, status FROM container_workers").fetchone()
    assert row is not None
    assert (row[0], row[2]) == (LOAD, "pending")
    assert datetime.now(UTC) - row[1] < timedelta(minutes=5)


def other_tokens(worker_id: UUID, good: str) -> dict[str, tuple[str, int]]:
    """Tokens that are not the worker's, and the status that each is refused with."""
    claims = {"workerId": str(worker_id), "type": "worker", "generatedBy": "u", "generatedAt": 1}
    return {
        "another worker's": (worker_token(SECRET, uuid4()), 403),
        "another signature": (jwt.encode(claims, "y" * 40), 401),
        "an administrator's": (jwt.encode({"userId": str(worker_id), "email": "a@b.c"}, SECRET), 403),
        "another type": (jwt.encode(claims | {"type": "admin"}, SECRET), 403),
        "expired": (jwt.encode(claims | {"exp": 1}, SECRET), 401),
        "an older one of this worker": (jwt.encode(claims, SECRET), 401),
        "not a token": ("x" * 50, 401),
        "cut": (good[:-4], 401),
    }


def test_other_tokens_are_refused_and_nothing_is_written(
    api: httpx.Client, connection: psycopg.Connection, context: Context
) -> None:
    invitation = invitations.invite(context, TESTS)
    for what, (token, status) in other_tokens(invitation.worker_id, invitation.token).items():
        response = beat(api, invitation.worker_id, token)
        assert (what, response.status_code) == (what, status)
        assert error_code(response) == {401: "UNAUTHORIZED", 403: "FORBIDDEN"}[status]
        assert heard(connection, invitation.worker_id) is None, what
        before = connection.execute("SELECT * FROM container_workers").fetchall()
        if what != "another worker's":
            response = api.post("/api/workers/register", headers=bearer(token), json=REGISTRATION)
            assert (what, response.status_code) == (what, status)
        assert connection.execute("SELECT * FROM container_workers").fetchall() == before, what


def test_an_edited_hash_and_an_expiry_in_the_database_refuse(
    api: httpx.Client, connection: psycopg.Connection, context: Context
) -> None:
    for change in ("auth_token_hash = repeat('0', 64)", "auth_token_expires_at = now() - interval '1 second'"):
        invitation = invitations.invite(context, TESTS)
        connection.execute(f"UPDATE container_workers SET {change} WHERE id = %s", (invitation.worker_id,))
        assert beat(api, invitation.worker_id, invitation.token).status_code == 401
        assert heard(connection, invitation.worker_id) is None


def test_a_removed_worker_is_refused_and_does_not_come_back(
    api: httpx.Client, admin: dict[str, str], connection: psycopg.Connection, context: Context
) -> None:
    invitation = invitations.invite(context, TESTS)
    assert beat(api, invitation.worker_id, invitation.token).status_code == 200
    assert api.delete(f"/api/workers/{invitation.worker_id}", headers=admin).status_code == 200
    assert beat(api, invitation.worker_id, invitation.token).status_code == 403
    again = api.post("/api/workers/register", headers=bearer(invitation.token), json=REGISTRATION)
    assert again.status_code == 403
    assert connection.execute("SELECT count(*) FROM container_workers").fetchone() == (0,)


def test_a_worker_that_the_database_forgot_registers_again(api: httpx.Client) -> None:
    worker_id = uuid4()
    token = worker_token(SECRET, worker_id)
    response = beat(api, worker_id, token)
    assert (response.status_code, error_code(response)) == (404, "WORKER_NOT_FOUND")
    assert api.post("/api/workers/register", headers=bearer(token), json=REGISTRATION).status_code == 201
    assert beat(api, worker_id, token).status_code == 200


@pytest.mark.parametrize("hostname", ["h" * 255, "😀" * 255], ids=["letters", "emoji"])
def test_the_longest_hostnames_register(
    api: httpx.Client, connection: psycopg.Connection, context: Context, hostname: str
) -> None:
    invitation = invitations.invite(context, TESTS)
    said = REGISTRATION | {"hostname": hostname, "metadata": {"region": "r" * 1000}}
    answer = api.post("/api/workers/register", headers=bearer(invitation.token), json=said)
    assert answer.status_code == 201
    kept = "coalesce(metadata ->> 'reportedHostname', hostname)"
    stored = connection.execute(f"SELECT {kept}, metadata ->> 'claimedRegion' FROM container_workers").fetchone()
    assert stored == (hostname, "r" * 1000)


def test_registering_again_is_an_update(api: httpx.Client, connection: psycopg.Connection, context: Context) -> None:
    invitation = invitations.invite(context, TESTS)
    headers = bearer(invitation.token)
    assert (
        api.post("/api/workers/register", headers=headers, json=REGISTRATION).json()["data"]["name"]
        == "worker-worker-1"
    )
    changed = REGISTRATION | {"hostname": "renamed", "metadata": {"swarmNodeId": "node-1"}}
    again = api.post("/api/workers/register", headers=headers, json=changed)
    assert again.status_code == 201
    document = again.json()["data"]
    assert (document["name"], document["swarmNodeClaim"]) == ("worker-renamed", "node-1")
    assert connection.execute("SELECT count(*) FROM container_workers").fetchone() == (1,)
    other = invitations.invite(context, TESTS)
    same = api.post("/api/workers/register", headers=bearer(other.token), json=changed)
    assert same.status_code == 201  # it is for the monitor to find out whose node it is


def test_what_administrators_may_do_only_they_may(
    api: httpx.Client, connection: psycopg.Connection, context: Context
) -> None:
    worker_id = invitations.invite(context, TESTS).worker_id
    routes = [
        ("GET", "/api/workers"),
        ("GET", f"/api/workers/{worker_id}"),
        ("POST", "/api/workers/generate-script"),
        ("POST", f"/api/workers/{worker_id}/drain"),
        ("POST", f"/api/workers/{worker_id}/undrain"),
        ("DELETE", f"/api/workers/{worker_id}"),
        ("GET", "/api/workers/cluster/status"),
    ]
    callers = {
        "nobody": ({}, 401),
        "a user": (bearer(admin_token(SECRET, connection, "user")), 403),
        "a worker": (bearer(worker_token(SECRET, worker_id)), 403),
        "a user who is gone": (bearer(tokens.issue_admin_token(SECRET, uuid4(), "a@b.c", datetime.now(UTC))), 401),
        "a forged token": (bearer(tokens.issue_admin_token("y" * 40, uuid4(), "a@b.c", datetime.now(UTC))), 401),
    }
    for method, path in routes:
        for who, (headers, status) in callers.items():
            response = api.request(method, path, headers=headers)
            assert (who, method, path, response.status_code) == (who, method, path, status)
            error_code(response)
    assert connection.execute("SELECT count(*) FROM container_workers").fetchone() == (1,)


def test_listing_pages_filters_and_searches(
    api: httpx.Client, admin: dict[str, str], connection: psycopg.Connection
) -> None:
    for number in range(5):
        add_worker(
            connection, name=f"w{number}", hostname=f"host{number}", status="active" if number < 3 else "offline"
        )
    add_worker(connection, name="100%_odd", hostname="x", ip_address="10.9.8.7")

    def names(query: str) -> tuple[list[str], int]:
        body = api.get(f"/api/workers?{query}", headers=admin).json()
        return [worker["name"] for worker in body["data"]], body["pagination"]["total"]

    assert names("") == (["100%_odd", "w0", "w1", "w2", "w3", "w4"], 6)
    assert names("status=offline") == (["w3", "w4"], 2)
    assert names("limit=2&offset=1") == (["w0", "w1"], 6)
    assert names("search=HOST3") == (["w3"], 1)
    assert names("search=%25_") == (["100%_odd"], 1)
    assert names("search=10.9.8") == (["100%_odd"], 1)
    assert names("status=active&search=w&limit=1") == (["w0"], 3)
    assert names("search=HOST*&limit=2") == (["w0", "w1"], 5)
    following = api.get("/api/workers?limit=2", headers=admin).json()["pagination"]["next"]
    assert names(str(httpx.QueryParams({"after": following, "limit": 2}))) == names("after=w0&limit=2")
    assert names("after=w0&limit=2") == (["w1", "w2"], 6)
    assert api.get("/api/workers?after=gone", headers=admin).status_code == 404
    for wrong in ("status=busy", "limit=0", "limit=x", "limit=1001", "offset=-1", "search=%00"):
        response = api.get(f"/api/workers?{wrong}", headers=admin)
        assert (wrong, response.status_code) == (wrong, 400)
        assert wrong.split("=")[0] in response.json()["error"]["message"]


def test_removing_and_draining(api: httpx.Client, admin: dict[str, str], connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, name="busy")
    organization = uuid4()
    connection.execute("INSERT INTO organizations (id, name, slug) VALUES (%s, 'o', 'o')", (organization,))
    service = uuid4()
    connection.execute(
        "INSERT INTO container_services (id, organization_id, name, slug) VALUES (%s, %s, 's', 's')",
        (service, organization),
    )
    connection.execute(
        "INSERT INTO container_deployments (service_id, worker_id, image_tag, status) VALUES (%s, %s, 'v1', 'running')",
        (service, worker_id),
    )
    refused = api.delete(f"/api/workers/{worker_id}", headers=admin)
    assert (refused.status_code, error_code(refused)) == (409, "WORKER_HAS_CONTAINERS")
    assert api.post(f"/api/workers/{worker_id}/drain", headers=admin).json()["success"] is True
    assert api.post(f"/api/workers/{worker_id}/drain", headers=admin).status_code == 200
    asked = api.get(f"/api/workers/{worker_id}", headers=admin).json()["data"]
    assert asked["drainRequestedAt"] is not None
    connection.execute("UPDATE container_deployments SET status = 'stopped'")
    assert api.delete(f"/api/workers/{worker_id}", headers=admin).status_code == 200
    assert api.delete(f"/api/workers/{worker_id}", headers=admin).status_code == 404
    kinds = connection.execute("SELECT kind, actor LIKE 'admin-%' FROM worker_events ORDER BY seq").fetchall()
    assert kinds == [("drain_requested", True), ("removed", True)]


def test_a_drain_has_a_reason_and_an_end(
    api: httpx.Client, admin: dict[str, str], connection: psycopg.Connection
) -> None:
    path = f"/api/workers/{add_worker(connection, name='w')}"

    def ask(what: str, body: object = None) -> httpx.Response:
        return api.post(f"{path}/{what}", headers=admin, json=body)

    def shown() -> tuple[bool, str | None]:
        document = api.get(path, headers=admin).json()["data"]
        return document["drainRequestedAt"] is not None, document["drainReason"]

    assert ask("drain", {"reason": "new disk"}).json()["message"] == "Worker w is set to drain"
    assert shown() == (True, "new disk")
    wrongs: list[object] = [{"reason": ""}, {"reason": 1}, {"reason": "a\x1b[31m"}, {"reason": "x" * 1001}, []]
    for wrong in wrongs:
        refused = ask("undrain", wrong)
        assert (wrong, refused.status_code) == (wrong, 400)
    assert ask("undrain", {"reason": "done"}).json()["message"] == "Worker w is back in service"
    again = api.post(f"{path}/undrain", headers=admin)
    assert (again.status_code, again.json()["message"]) == (200, "Worker w is not drained: nothing to do")
    assert shown() == (False, None)
    events = connection.execute("SELECT kind, reason FROM worker_events ORDER BY seq").fetchall()
    assert events == [("drain_requested", "new disk"), ("drain_cancelled", "done")]
    assert api.post(f"/api/workers/{uuid4()}/undrain", headers=admin).status_code == 404


def test_the_cluster_in_figures_is_cached(
    api: httpx.Client, admin: dict[str, str], connection: psycopg.Connection
) -> None:
    for status, cores, cpu in (
        ("active", 6, 10),
        ("unhealthy", 2, 90),
        ("offline", 64, 50),
        ("draining", 0, 0),
        ("pending", 1, 0),
    ):
        add_worker(
            connection,
            status=status,
            capacity=json.dumps({"cpuCores": cores, "memoryMb": 100 * cores, "diskGb": cores}),
            current_load=json.dumps(
                {"cpu_percent": cpu, "memory_percent": cpu, "disk_percent": 0, "container_count": 3}
            ),
        )
    stats = api.get("/api/workers/cluster/status", headers=admin).json()["data"]
    assert stats == {
        "totalWorkers": 5,
        "sampledWorkers": None,
        "activeWorkers": 1,
        "unhealthyWorkers": 1,
        "offlineWorkers": 1,
        "drainingWorkers": 1,
        "pendingWorkers": 1,
        "totalCapacity": {"cpuCores": 8, "memoryMb": 800, "diskGb": 8},
        "totalLoad": {"cpuPercent": 30, "memoryPercent": 30, "diskPercent": 0},
        "averageLoad": {"cpuPercent": 33.33, "memoryPercent": 33.33, "diskPercent": 0},
        "totalContainers": 9,
        "limits": {"cpuPercent": 90, "cpuHeartbeats": 2, "memoryPercent": 95, "diskPercent": 90},
    }
    add_worker(connection)
    assert api.get("/api/workers/cluster/status", headers=admin).json()["data"] == stats


def test_a_poison_beat_fails_alone(api: httpx.Client, connection: psycopg.Connection, context: Context) -> None:
    """A row that the database refuses for reasons of its own does not take the rest of its batch with it."""
    invited = [invitations.invite(context, TESTS) for _ in range(8)]
    poison = invited[3].worker_id
    connection.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.id = '{poison}' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON container_workers FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    outcomes = asyncio.run(
        heartbeats.record(
            context, [Heartbeat(str(one.worker_id), tokens.fingerprint(one.token), Load()) for one in invited]
        )
    )
    assert [outcome is None for outcome in outcomes] == [one.worker_id != poison for one in invited]
    assert beat(api, poison, invited[3].token).status_code == 500
    assert beat(api, invited[0].worker_id, invited[0].token).status_code == 200


def test_a_batch_that_comes_too_late_is_not_stored(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database carries out what it was sent, though we have given it up: nothing may come of it then."""
    one = invitations.invite(context, TESTS)
    beats = [Heartbeat(str(one.worker_id), tokens.fingerprint(one.token), Load())]
    with monkeypatch.context() as patch, pytest.raises(DatabaseUnavailable):
        patch.setattr(db, "LIMIT_SECONDS", -1)
        asyncio.run(heartbeats.record(context, beats))
    context.db.close()  # the limit may have cut its connection off
    assert workers.get(context, one.worker_id).last_heartbeat_at is None
    assert asyncio.run(heartbeats.record(context, beats)) == [None]


def test_two_beats_of_one_worker_in_a_batch(context: Context) -> None:
    """Both are answered, the later one stands; a stranger's beat for the same worker in the same batch is refused."""
    one = invitations.invite(context, TESTS)
    hashed = tokens.fingerprint(one.token)
    beats = [
        Heartbeat(str(one.worker_id), hashed, Load(1)),
        Heartbeat(str(one.worker_id), "0" * 64, Load(99)),
        Heartbeat(str(one.worker_id), hashed, Load(2)),
    ]
    outcomes = asyncio.run(heartbeats.record(context, beats))
    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert workers.get(context, one.worker_id).load.cpu_percent == 2


def test_many_register_one_unknown_worker_at_once(context: Context) -> None:
    worker_id = uuid4()
    token = worker_token(SECRET, worker_id)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: register(context, token, registration("h")).worker.id, range(8)))
    assert set(made) == {worker_id}


def test_many_ask_for_one_name_at_once(context: Context) -> None:
    def ask(_: int) -> bool:
        try:
            invitations.invite(context, TESTS, "wanted")
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))).count(True) == 1


def test_the_body_has_a_limit(api: httpx.Client, context: Context) -> None:
    invitation = invitations.invite(context, TESTS)

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    for path in (f"/api/workers/{invitation.worker_id}/heartbeat", "/api/workers/register"):
        for content in (b"x" * 70_000, chunks()):
            response = api.post(path, headers=bearer(invitation.token), content=content)
            assert (response.status_code, error_code(response)) == (413, "BODY_TOO_LARGE")


def test_unknown_routes_and_methods(api: httpx.Client) -> None:
    assert error_code(api.get("/api/nothing")) == "NOT_FOUND"
    assert api.get("/api/workers/").status_code == 404, "no redirect by the client's own Host header"
    for method, path in (("GET", f"/api/workers/{uuid4()}/heartbeat"), ("PUT", "/api/workers"), ("POST", "/healthz")):
        response = api.request(method, path)
        assert (response.status_code, error_code(response)) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["Allow"]
    headers = bearer(worker_token(SECRET, uuid4()))
    assert api.post("/api/workers/nobody/heartbeat", headers=headers, json=LOAD).status_code == 404


def test_health_readiness_and_metrics(api: httpx.Client, connection: psycopg.Connection, context: Context) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    row = connection.execute("SELECT id::text FROM skyctl_installation").fetchone() or ("",)
    ready = {"status": "ready", "schemaVersion": SCHEMA_VERSION, "installationId": row[0]}
    assert api.get("/readyz").json() == ready
    invitation = invitations.invite(context, TESTS)
    beat(api, invitation.worker_id, invitation.token)
    beat(api, invitation.worker_id, "other")
    beat(api, invitation.worker_id, invitation.token, {})
    text = metrics(api.base_url)
    for line in ('skyctl_heartbeats_total{outcome="accepted"} 1.0', 'outcome="refused"} 1.0', 'outcome="invalid"} 1.0'):
        assert line in text
    assert 'skyctl_http_requests_total{method="GET",route="/readyz",status="200"} 1.0' in text
    connection.execute("DELETE FROM skyctl_schema")
    eventually(lambda: api.get("/readyz").status_code == 503)


def test_sigterm_answers_what_was_accepted(
    serve: Serve, connection: psycopg.Connection, context: Context, environment: dict[str, str]
) -> None:
    """A beat that waits for a lock when SIGTERM arrives is still committed and answered; then the process ends with
    0."""
    url, process = serve()
    invitation = invitations.invite(context, TESTS)
    host, port = re.findall(r"//(.*):(\d+)", url)[0]
    body = json.dumps(LOAD)
    request = (
        f"POST /api/workers/{invitation.worker_id}/heartbeat HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {invitation.token}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with socket.create_connection((host, int(port))) as client:
        with psycopg.connect(environment["SKYCTL_DATABASE_URL"]) as locking:
            locking.execute("SELECT * FROM container_workers FOR UPDATE")
            client.sendall(request.encode())
            eventually(lambda: (connection.execute(waiting).fetchone() or (0,))[0])
            process.popen.send_signal(signal.SIGTERM)
            eventually(lambda: _refuses(host, int(port)))
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert process.stop() == 0
    assert heard(connection, invitation.worker_id) is not None


def _refuses(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return True
    return False


def test_several_processes_share_the_port(serve: Serve, context: Context) -> None:
    url, process = serve("--processes", "2")
    invitation = invitations.invite(context, TESTS)
    for _ in range(20):
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
            assert beat(client, invitation.worker_id, invitation.token).status_code == 200
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        assert 'skyctl_heartbeats_total{outcome="accepted"} 20.0' in metrics(url)
    assert process.stop() == 0


def test_tls(serve: Serve, tmp_path: Path) -> None:
    certificate = authority(tmp_path, "serve")
    key = certificate.with_suffix(".key")
    url, _ = serve("--tls-cert", str(certificate), "--tls-key", str(key))
    assert url.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=url, verify=trusted, timeout=PATIENCE_SECONDS) as client:
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--tls-cert", "/nowhere.pem"], 2, "go together"),
        (["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"], 2, "/nowhere.pem"),
        (["--insecure-http", "--host", "192.0.2.1"], 2, "192.0.2.1"),
        (["--insecure-http", "--host", "no.such.host.invalid"], 2, "no.such.host.invalid"),
        (["--processes", "0"], 2, "--processes"),
    ],
)
def test_serve_says_what_is_wrong(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    result = cli("serve", *arguments)
    assert result.returncode == code
    assert words in result.stderr.splitlines()[0]
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_said(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("serve", "--port", str(port))
    assert result.returncode == 4
    assert str(port) in result.stderr


def test_registering_is_an_event(connection: psycopg.Connection, context: Context) -> None:
    invitation = invitations.invite(context, TESTS)
    register(context, invitation.token, registration("h"))
    kinds = connection.execute("SELECT kind, actor FROM worker_events ORDER BY seq").fetchall()
    assert kinds == [("invited", "tests"), ("registered", "worker:worker-h")]
