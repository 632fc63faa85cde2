"""`skyctl serve` from several processes: one end for all, one shape of log, nothing left behind."""

import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Cli, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, add_worker, admin_token, bearer, eventually, get, ready

Serve = Callable[..., tuple[str, Process]]


def refuses(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=5).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_ends_it(serve: Serve, tmp_path: Path, processes: str, number: signal.Signals) -> None:
    url, process = serve("--processes", processes, TMPDIR=str(tmp_path))
    assert ready(url)
    assert process.stop(number) == 0
    assert refuses(url)
    assert not list(tmp_path.glob("skyctl-metrics-*")), "the folder of the metrics goes with it"


def test_its_end_is_no_error_of_what_it_lives_by(
    serve: Serve, connection: psycopg.Connection, environment: dict[str, str]
) -> None:
    """A sign of life that waits for the database when SIGTERM arrives is given up without a word."""
    _, process = serve()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(environment["SKYCTL_DATABASE_URL"]) as locking:
        locking.execute("LOCK TABLE container_workers IN EXCLUSIVE MODE")
        eventually(lambda: (connection.execute(waiting).fetchone() or (0,))[0])
        assert process.stop() == 0
    assert [line for line in process.seen if "listening on" not in line] == []


def test_the_parents_death_is_the_end_of_all(serve: Serve, tmp_path: Path) -> None:
    url, process = serve("--processes", "2", TMPDIR=str(tmp_path))
    assert ready(url)
    process.popen.kill()
    process.popen.wait()
    eventually(lambda: refuses(url))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_every_process_logs_with_the_time(
    serve: Serve, context: Context, connection: psycopg.Connection, tmp_path: Path, processes: str
) -> None:
    url, process = serve("--processes", processes, TMPDIR=str(tmp_path))
    invitation = invitations.invite(context, TESTS)
    connection.execute("ALTER TABLE container_workers RENAME TO elsewhere")
    path = f"{url}/api/workers/{invitation.worker_id}/heartbeat"
    refused = httpx.post(path, headers=bearer(invitation.token), json=LOAD, timeout=PATIENCE_SECONDS)
    assert refused.status_code == 503
    line = process.until("WARNING action=")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ WARNING ", line)
    assert process.stop() == 0


def test_it_serves_more_than_the_usual_limit_of_files(environment: dict[str, str]) -> None:
    command = ["bash", "-c", f"ulimit -Sn 100; exec {sys.executable} -m skyctl serve --port 0"]
    process = Process(command, environment)
    try:
        url = httpx.URL(process.until("listening on ").split("listening on ")[1].strip())
        with ExitStack() as stack:
            for _ in range(150):
                stack.enter_context(socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_SECONDS))
            assert get(url.join("/healthz")).status_code == 200
    finally:
        assert process.stop() == 0
        process.popen.stderr.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_it_tells_the_service_manager(serve: Serve, tmp_path: Path, processes: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_SECONDS)
        url, process = serve("--processes", processes, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert supervisor.recv(4096) == b"READY=1"
        assert get(f"{url}/healthz").status_code == 200
        assert process.stop() == 0
        said = supervisor.recv(4096)
        while said == b"READY=1":  # of the other process
            said = supervisor.recv(4096)
        assert said == b"STOPPING=1"


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [
        ((), "127.0.0.1"),
        (("--proxy", "10.0.0.1"), "127.0.0.1"),
        (("--proxy", "127.0.0.0/8", "--processes", "2"), "192.0.2.7"),
    ],
)
def test_only_a_proxy_that_was_named_says_where_a_request_came_from(
    serve: Serve, connection: psycopg.Connection, proxies: tuple[str, ...], seen: str
) -> None:
    url, _ = serve(*proxies)
    worker_id = add_worker(connection)
    headers = bearer(admin_token(SECRET, connection)) | {"X-Forwarded-For": "6.6.6.6, 192.0.2.7"}
    drained = httpx.post(f"{url}/api/workers/{worker_id}/drain", headers=headers, timeout=PATIENCE_SECONDS)
    assert drained.status_code == 200
    logged = connection.execute("SELECT DISTINCT ip_address FROM activity_logs WHERE ip_address IS NOT NULL").fetchall()
    assert logged == [(seen,)]


def test_a_proxy_is_an_address(cli: Cli) -> None:
    refused = cli("serve", "--proxy", "nginx")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --proxy: 'nginx' is not an IP address or network")
