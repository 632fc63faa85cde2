"""A `serve` that has no more files: it says 503, survives, and does afterwards what it did before."""

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import psycopg

from skyctl.api.app import Application
from skyctl.domain.states import WorkerStatus
from skyctl.operations.admin import workers
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, REGISTRATION, TESTS, admin_token, bearer, eventually, get
from tests.support.shortages import short_of_files

Serve = Callable[..., tuple[str, Process]]
QUICK = {"WORKER_HEARTBEAT_TIMEOUT": "3", "WORKER_HEARTBEAT_INTERVAL": "1"}
IS_STALE = "SELECT max(last_seen_at) < now() - interval '3 seconds' FROM serve_instances"


def test_a_dead_worker_is_noticed_after_a_shortage_of_files(
    serve: Serve, start: Callable[..., Process], context: Context, connection: psycopg.Connection
) -> None:
    url, process = serve(**QUICK)
    invitation = invitations.invite(context, TESTS)
    path, own = f"/api/workers/{invitation.worker_id}/heartbeat", bearer(invitation.token)
    administrator = bearer(admin_token(SECRET, connection))
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:  # one connection, open before
        assert client.post("/api/workers/register", json=REGISTRATION, headers=own).status_code == 201
        assert client.post(path, json=LOAD, headers=own).status_code == 200
        with short_of_files(process.popen.pid):
            eventually(lambda: connection.execute(IS_STALE).fetchone() == (True,))
            answers = [
                client.post(path, json=LOAD, headers=own),
                client.get("/api/workers", headers=administrator),
                client.post("/api/workers/generate-script", json={}, headers=administrator),
                client.get("/readyz"),
            ]
            assert [(answer.status_code, answer.headers.get("Retry-After")) for answer in answers] == 4 * [(503, "2")]
        assert client.post(path, json=LOAD, headers=own).status_code == 200
        start("monitor", "--interval", "0.5", **QUICK).until("action=leads")
    eventually(lambda: workers.get(context, invitation.worker_id).status is WorkerStatus.OFFLINE)
    assert get(f"{url}/readyz").status_code == 200


def test_connections_leave_files_for_the_work_where_there_are_few(
    environment: dict[str, str], context: Context
) -> None:
    invitation = invitations.invite(context, TESTS)
    process = Process(["bash", "-c", f"ulimit -n 80; exec {sys.executable} -m skyctl serve --port 0"], environment)
    try:
        url = httpx.URL(process.until("listening on ").split("listening on ")[1].strip())
        with ExitStack() as stack:
            for _ in range(100):
                client = stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE_SECONDS))
                assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 200
            beat = client.post(
                f"/api/workers/{invitation.worker_id}/heartbeat", json=LOAD, headers=bearer(invitation.token)
            )
            assert beat.status_code == 200
    finally:
        assert process.stop() == 0
        process.popen.stderr.close()  # type: ignore[union-attr]


def test_what_there_is_no_thread_for_is_503(context: Context, connection: psycopg.Connection) -> None:
    administrator = bearer(admin_token(SECRET, connection))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Application(context))
        async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
            return await client.get("/api/workers", headers=administrator)

    before = threading.stack_size(2**46)  # more than there is
    try:
        refused = asyncio.run(ask())
    finally:
        threading.stack_size(before)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert refused.json()["error"]["code"] == "BUSY"
