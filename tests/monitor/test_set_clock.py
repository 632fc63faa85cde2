"""Somebody sets the database's clock while `serve` and a monitor run."""

from collections.abc import Callable

import psycopg

from skyctl.operations.shared.context import Context
from tests.conftest import Process
from tests.monitor.test_presence import beating, shown
from tests.support.helpers import add_worker, eventually

Start = Callable[..., Process]
Serve = Callable[..., tuple[str, Process]]

HOUR = 3600
OFFLINE = "SELECT array_agg(worker_name) FROM worker_events WHERE to_status = 'offline'"


def set_clock(connection: psycopg.Connection, seconds: int) -> None:
    """Set the clock so far from the right time."""
    connection.execute(
        "CREATE OR REPLACE FUNCTION skyctl_now() RETURNS timestamptz LANGUAGE sql STABLE AS "
        f"$$ SELECT now() + interval '{seconds} s' $$"
    )


def wait_for_passes(connection: psycopg.Connection) -> None:
    """Wait until a monitor has looked at all workers several times by the present clock."""
    now = shown(connection, "SELECT skyctl_now()")
    passed = "SELECT max(last_pass_at) BETWEEN %s + interval '2 s' AND skyctl_now() FROM monitor_leases"
    eventually(lambda: shown(connection, passed, now))


def test_a_clock_that_is_set_back_and_forth(
    start: Start, serve: Serve, context: Context, connection: psycopg.Connection
) -> None:
    """Who lives on stays, who dies is noticed in time, and nobody falls silent by the step itself."""
    url, _ = serve()
    short = {"WORKER_HEARTBEAT_INTERVAL": "2", "WORKER_HEARTBEAT_TIMEOUT": "10"}
    monitor = start("monitor", "--interval", "0.5", **short)
    active = "SELECT count(*) FROM container_workers WHERE status = 'active'"
    with beating(url, context, ["alive"]):
        with beating(url, context, ["dying"]):
            eventually(lambda: shown(connection, active) == 2)
        set_clock(connection, -HOUR)
        eventually(lambda: shown(connection, "SELECT count(*) FROM worker_events WHERE kind = 'clock_set'"))
        monitor.until("name='dying' from=active to=offline")
        set_clock(connection, 0)
        wait_for_passes(connection)
        assert shown(connection, OFFLINE) == ["dying"]
        assert shown(connection, "SELECT max(ended_at - started_at) > interval '59 min' FROM serve_outages")


def test_a_leap_is_no_silence_where_no_serve_runs(start: Start, connection: psycopg.Connection) -> None:
    """The panel's own API hears the workers, and the monitor alone has a clock to compare with."""
    monitor = start("monitor", "--interval", "0.5")
    monitor.until("action=leads")
    add_worker(connection, name="w", last_heartbeat_at="now")
    monitor.until("to=active")
    wait_for_passes(connection)
    set_clock(connection, HOUR)
    assert "set ahead" in monitor.until("action=clock_set", seconds=30)
    wait_for_passes(connection)
    assert shown(connection, OFFLINE) is None
