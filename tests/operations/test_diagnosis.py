"""Why a worker has its status: what decided it, the facts now, what would change it."""

import json
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from skyctl.domain.drains import DrainOptions
from skyctl.operations.admin import diagnosis, drains, workers
from skyctl.operations.shared import outages
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, Process
from tests.support.helpers import TESTS, add_worker, look

pytestmark = pytest.mark.in_process

HEARD = "UPDATE container_workers SET last_heartbeat_at = skyctl_now() - make_interval(secs => %s)"


def told(cli: Cli, name: str = "w") -> str:
    done = cli("workers", "why", name)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("load", "silent", "status", "decided", "would_change"),
    [
        (
            1,
            5,
            "active",
            "pending to active: heard from, and within its limits",
            "unhealthy, by a heartbeat with memory > 95 %",
        ),
        (99, 5, "unhealthy", "pending to unhealthy: CPU 99 % > 90 %", "active, by a heartbeat with CPU ≤ 90 %"),
        (1, 500, "offline", "pending to offline: silent for 50", "a heartbeat brings it back"),
    ],
)
def test_each_status_tells_what_decided_it(
    cli: Cli,
    context: Context,
    connection: psycopg.Connection,
    load: int,
    silent: int,
    status: str,
    decided: str,
    would_change: str,
) -> None:
    add_worker(connection, name="w", current_load=json.dumps({"cpuPercent": load}))
    connection.execute(HEARD, [silent])
    look(context)
    text = told(cli)
    assert f"Status {status}, since " in text
    assert f"Decided {decided}" in text
    assert "by monitor, term 1, event 1)" in text
    assert would_change in text
    assert "has not looked yet" not in text
    document = json.loads(cli("workers", "why", "w", "-o", "json").stdout)
    assert (document["worker"]["status"], document["settled"]) == (status, True)
    assert document["decidedBy"]["toStatus"] == status
    assert document["decidedBy"]["term"] == 1
    assert document["facts"]["silenceSeconds"] >= silent
    assert document["facts"]["load"]["cpuPercent"] == load
    assert document["verdict"]["status"] == status
    assert document["wouldChange"]


def test_nobody_has_looked_yet(cli: Cli, connection: psycopg.Connection) -> None:
    add_worker(connection, name="w")
    text = told(cli)
    assert "Decided by no monitor yet" in text
    assert "Now pending: never heard from" in text
    assert "Would change active, by its first heartbeat" in text
    connection.execute(HEARD, [1])
    assert "none has run yet: run `skyctl monitor`" in told(cli)


def test_a_drain_tells_who_wanted_it_and_why(cli: Cli, context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, name="w")
    connection.execute(HEARD, [1])
    look(context)
    drains.drain(context, [worker_id], TESTS, DrainOptions("new \x1b[31mdisk"))
    before = told(cli)
    assert "Status active" in before
    assert (
        "Now draining: to be drained: new \\x1b[31mdisk (but the monitor has not looked yet; its last pass was"
        in before
    )
    look(context)
    after = told(cli)
    assert "Status draining" in after
    assert "drain asked" in after
    assert "back in service, by `skyctl workers undrain`" in after
    assert not {"\x1b"} & set(before + after)
    drains.undrain(context, worker_id, TESTS)
    assert "drain taken back" in told(cli)


def test_stopped_on_purpose(cli: Cli, context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, name="w")
    connection.execute(HEARD, [1])
    workers.note_stopped(context, worker_id, TESTS)
    look(context)
    text = told(cli)
    assert "pending to offline: its agent was stopped on purpose" in text
    assert "sample onPurpose: true" in text
    assert "stopped its agent was stopped on purpose" in text


def test_outages_of_ours_are_taken_out_of_silence(context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, name="w")
    connection.execute(HEARD, [670])
    connection.execute(
        "INSERT INTO serve_outages (started_at, ended_at) SELECT now() - interval '660 s', now() - interval '60 s'"
    )
    found = diagnosis.diagnose(context, worker_id)
    assert found.silence is not None
    assert timedelta(seconds=70) <= found.silence < timedelta(seconds=120)
    assert found.deaf == timedelta(seconds=600)
    assert found.verdict.status == "active"
    with context.db.transaction() as tx:
        assert len(outages.known_outages(tx)) == 1


def test_a_mass_failure_is_named(cli: Cli, context: Context, connection: psycopg.Connection) -> None:
    for name in "abcd":
        add_worker(connection, name=name, status="active")
    connection.execute(HEARD, [130])
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() WHERE name = 'd'")
    look(context)
    text = told(cli, "a")
    assert "3 of 4 workers failed at once" in text
    assert "nothing is moved off them automatically until they return" in text
    document = json.loads(cli("workers", "why", "a", "-o", "json").stdout)
    assert document["facts"]["massFailure"]["silent"] == 3


def test_a_flapping_worker_tells_since_when(cli: Cli, connection: psycopg.Connection) -> None:
    add_worker(connection, name="w")
    connection.execute("UPDATE container_workers SET flapping_since = now() - interval '61 s'")
    assert "flapping since 1m ago" in told(cli)


def test_a_worker_that_is_not_there(cli: Cli, connection: psycopg.Connection) -> None:
    assert connection
    done = cli("workers", "why", "nobody")
    assert (done.returncode, done.stdout) == (3, "")


def test_a_drain_and_its_end_are_concluded_by_the_monitor(
    cli: Cli, start: Callable[..., Process], connection: psycopg.Connection
) -> None:
    """With an interval of an hour, both are seen at once."""
    add_worker(connection, name="w")
    connection.execute(HEARD, [1])
    monitor = start("monitor", "--interval", "3600")
    monitor.until("to=active")
    assert cli("workers", "drain", "w", "--reason", "new disk").stdout == "w drains\n"
    monitor.until("to=draining")
    assert "Decided active to draining: to be drained: new disk" in told(cli)
    assert cli("workers", "undrain", "w").stdout == "w is back in service\n"
    monitor.until("to=active")
    text = told(cli)
    assert "Status active" in text
    assert "drain not asked" in text
