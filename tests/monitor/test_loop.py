"""The monitor as a process: woken by news, ended by signals, patient with the database."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
import pytest

from skyctl.operations.admin import drains, workers
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, add_worker, bearer, eventually

Start = Callable[..., Process]


def status_of(context: Context, worker_id: object) -> str:
    return next(worker.status.value for worker in workers.list_workers(context).workers if worker.id == worker_id)


def test_a_heartbeat_is_news(
    start: Start, serve: Callable[..., tuple[str, Process]], context: Context, connection: psycopg.Connection
) -> None:
    """With an interval of an hour, each change of status comes from a NOTIFY."""
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=watching")
    url, _ = serve()
    invitation = invitations.invite(context, TESTS)

    def beat(cpu: float) -> None:
        path = f"{url}/api/workers/{invitation.worker_id}/heartbeat"
        load = LOAD | {"cpuPercent": cpu}
        answer = httpx.post(path, headers=bearer(invitation.token), json=load, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200

    for cpu, status in ((10, "active"), (99, "unhealthy"), (10, "active")):
        beat(cpu)
        beat(cpu)  # CPU has to last
        assert f"to={status}" in monitor.until("action=status_changed")
        assert status_of(context, invitation.worker_id) == status
    drains.drain(context, [invitation.worker_id], TESTS)
    assert "to=draining" in monitor.until("action=status_changed")
    beat(99)
    workers.note_stopped(context, invitation.worker_id, TESTS)
    assert "to=offline" in monitor.until("action=status_changed")
    beat(10)
    assert "to=draining" in monitor.until("action=status_changed"), "the drain outlives offline"
    kinds = connection.execute("SELECT count(*) FROM worker_events WHERE kind = 'status_changed'").fetchone()
    assert kinds == (6,)


def test_an_engine_that_fails_or_is_back_is_news_of_an_exhausted_worker_too(
    start: Start, serve: Callable[..., tuple[str, Process]], context: Context, connection: psycopg.Connection
) -> None:
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=watching")
    invitation = invitations.invite(context, TESTS)
    path = f"{serve()[0]}/api/workers/{invitation.worker_id}/heartbeat"

    def beat(*, answers: bool) -> None:
        load = LOAD | {"cpuPercent": 99, "engineAnswers": answers}
        answer = httpx.post(path, headers=bearer(invitation.token), json=load, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200

    beat(answers=True)
    assert "to=active" in monitor.until("action=status_changed")
    beat(answers=True)
    assert "CPU 99 %" in monitor.until("action=status_changed")
    beat(answers=False)
    connection.execute("UPDATE container_workers SET engine_away_since = last_heartbeat_at - interval '61 s'")
    beat(answers=False)
    assert "its engine does not answer" in monitor.until("action=status_changed")
    beat(answers=True)
    assert "CPU 99 %" in monitor.until("action=status_changed")


def test_it_wakes_for_the_next_deadline(start: Start, context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, status="active")
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    monitor = start("monitor", "--interval", "3600", WORKER_HEARTBEAT_TIMEOUT="2", WORKER_HEARTBEAT_INTERVAL="1")
    assert "to=offline" in monitor.until("action=status_changed")
    assert status_of(context, worker_id) == "offline"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(start: Start, number: signal.Signals) -> None:
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=watching")
    assert monitor.stop(number) == 0


def test_once(cli: Cli, context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, status="active")
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() - interval '1 hour'")
    done = cli("monitor", "--once")
    assert (done.returncode, done.stdout) == (0, "")
    assert "to=offline" in done.stderr
    assert status_of(context, worker_id) == "offline"
    assert workers.list_workers(context).monitor_seen_at is not None
    assert cli("monitor", "--once", SKYCTL_DATABASE_URL="postgresql://127.0.0.1:1/x").returncode == 5


def test_it_survives_the_loss_of_its_connections(
    start: Start, context: Context, connection: psycopg.Connection
) -> None:
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=watching")
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    connection.execute(kill)
    assert "action=database_lost" in monitor.until("action=database_lost")
    monitor.until("action=watching")
    context.db.close()
    worker_id = invitations.invite(context, TESTS).worker_id
    workers.note_stopped(context, worker_id, TESTS)
    assert "to=offline" in monitor.until("action=status_changed")


def test_it_waits_for_a_database_that_is_read_only(start: Start, database_url: str) -> None:
    """As after a failover, until the other server is promoted."""
    name = database_url.split("?")[0].rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as setting:
        setting.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    monitor = start("monitor", "--interval", "1")
    monitor.until("action=database_lost")
    sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    with psycopg.connect(database_url, autocommit=True) as setting:
        (before,) = setting.execute(sessions).fetchall()[0]
        eventually(lambda: setting.execute(sessions).fetchall()[0][0] > before + 1)
        setting.execute("SET default_transaction_read_only = off")
        setting.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        setting.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    monitor.until("action=database_answers")
    assert monitor.stop() == 0
    lost = [line for line in monitor.seen if "action=database_lost" in line and "read-only" in line]
    assert len(lost) == 1, "however often it was tried"


def test_the_list_says_when_no_monitor_has_run(cli: Cli, connection: psycopg.Connection) -> None:
    add_worker(connection)
    assert "no monitor has run" in cli("workers", "list").stderr
    cli("monitor", "--once")
    assert cli("workers", "list").stderr == ""
    connection.execute("UPDATE monitor_leases SET last_pass_at = now() - interval '1 hour'")
    assert "1h ago" in cli("workers", "list").stderr
    assert cli("--quiet", "workers", "list").stderr == ""


def test_it_tells_the_service_manager(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_SECONDS)
        notified = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        monitor = start("monitor", "--interval", "3600", **notified)
        said: list[str] = []
        while "STATUS=leads term 1" not in said or said.count("WATCHDOG=1") < 3:
            said += supervisor.recv(4096).decode().splitlines()
        assert said[0] == "READY=1"
        assert monitor.stop() == 0
        while "STOPPING=1" not in said:
            said += supervisor.recv(4096).decode().splitlines()


def test_its_metrics(start: Start, cli: Cli, connection: psycopg.Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = cli("monitor", "--metrics-port", str(port))
        assert (refused.returncode, refused.stderr.splitlines()[1]) == (4, "hint: choose another --metrics-port")
    add_worker(connection, name="w", status="active")
    monitor = start("monitor", "--interval", "3600", "--metrics-port", str(port))
    monitor.until("name='w'")
    text = eventually(lambda: told(port))
    assert 'skyctl_monitor_events_total{kind="status_changed",status="pending"} 1.0' in text
    assert "skyctl_monitor_leading 1.0" in text


def told(port: int) -> str:
    """The metrics, once the first pass is counted."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS).text
    return text if "skyctl_monitor_pass_seconds_count 0.0" not in text else ""


def test_a_serve_that_was_killed_leaves_an_outage_and_marks_nobody(
    start: Start, serve: Callable[..., tuple[str, Process]], connection: psycopg.Connection
) -> None:
    """With a timeout shorter than the outage: only silence after its end counts."""
    short = {"WORKER_HEARTBEAT_INTERVAL": "1", "WORKER_HEARTBEAT_TIMEOUT": "7"}
    _, first = serve()
    eventually(lambda: connection.execute("SELECT count(*) = 1 FROM serve_instances").fetchone() == (True,))
    monitor = start("monitor", "--interval", "1", **short)
    monitor.until("action=leads")
    first.stop(signal.SIGKILL)
    worker_id = add_worker(connection, name="w", status="active")
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() WHERE id = %s", (worker_id,))
    query = "SELECT now() - max(last_seen_at) > interval '10 s' FROM serve_instances"
    eventually(lambda: connection.execute(query).fetchone() == (True,))
    serve()
    monitor.until("to=offline")
    found = connection.execute(
        "SELECT e.at - o.ended_at, o.ended_at - o.started_at FROM worker_events e, serve_outages o "
        "WHERE e.to_status = 'offline'"
    ).fetchall()
    assert len(found) == 1
    after, lasted = (each.total_seconds() for each in found[0])
    assert lasted > 10
    assert after > 5, "the timeout, less what was heard before"
