"""A database that is there and does not answer: refusals instead of silence, and an end when an end is asked for."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import schema, workers
from skyctl.operations.agents import invitations
from tests.conftest import Process, make_context
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, bearer

Serve = Callable[..., tuple[str, Process]]


@pytest.fixture
def server(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    own = EmbeddedPostgres(open_folder / "frozen")
    with own.running():
        yield own


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """The server and all its processes stand still."""
    first = psutil.Process(int((server.data / "postmaster.pid").read_text().splitlines()[0]))
    stopped = [first]
    try:
        first.suspend()  # from here on it has no new children
        stopped += first.children()
        for process in stopped[1:]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def test_a_frozen_database(server: EmbeddedPostgres, serve: Serve) -> None:
    context = make_context(server.url)
    schema.initialize(context)
    invitation = invitations.invite(context, TESTS)
    url, process = serve(SKYCTL_DATABASE_URL=server.url)
    path = f"/api/workers/{invitation.worker_id}/heartbeat"
    with httpx.Client(base_url=url, headers=bearer(invitation.token), timeout=PATIENCE_SECONDS) as client:
        assert client.post(path, json=LOAD).status_code == 200
        heard = workers.get(context, invitation.worker_id).last_heartbeat_at
        with frozen(server):
            for _ in range(2):
                refused = client.post(path, json=LOAD | {"containerCount": 99})
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
            process.popen.terminate()
            assert process.popen.wait(PATIENCE_SECONDS) == 0
    context.db.close()
    found = workers.get(context, invitation.worker_id)
    context.db.close()
    assert (found.last_heartbeat_at, found.load.container_count) == (heard, LOAD["containerCount"]), (
        "no false sign of life"
    )


def test_a_monitor_ends_though_its_database_is_frozen(server: EmbeddedPostgres, start: Callable[..., Process]) -> None:
    context = make_context(server.url)
    schema.initialize(context)
    context.db.close()
    monitor = start("monitor", "--interval", "0.5", SKYCTL_DATABASE_URL=server.url)
    monitor.until("action=leads")
    with frozen(server):
        assert monitor.stop(signal.SIGTERM) == 0
