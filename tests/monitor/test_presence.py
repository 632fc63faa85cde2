"""Presence means that a heartbeat could be written: while none can be, nobody is taken for silent."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psycopg
import pytest

from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, add_worker, bearer, eventually

Start = Callable[..., Process]
Serve = Callable[..., tuple[str, Process]]

TIMEOUT = 8
SHORT = {"WORKER_HEARTBEAT_INTERVAL": "1", "WORKER_HEARTBEAT_TIMEOUT": str(TIMEOUT)}
HELD_TABLE = "LOCK TABLE container_workers IN SHARE MODE"  # what CREATE INDEX takes
HELD_ROWS = "SELECT FROM container_workers FOR UPDATE"
UNSEEN = "SELECT max(last_seen_at) < now() - %s * interval '1 s' FROM serve_instances"


@contextmanager
def beating(url: str, context: Context, names: list[str]) -> Iterator[None]:
    """Workers that are alive: each beats again and again, whatever the answer."""
    over = threading.Event()

    def live(name: str) -> None:
        invitation = invitations.invite(context, TESTS, name)
        path = f"{url}/api/workers/{invitation.worker_id}/heartbeat"
        with httpx.Client(headers=bearer(invitation.token), timeout=PATIENCE_SECONDS) as client:
            while not over.wait(0.3):
                client.post(path, json=LOAD)

    with ThreadPoolExecutor(len(names)) as pool:
        lives = [pool.submit(live, name) for name in names]
        try:
            yield
        finally:
            over.set()
    for each in lives:
        each.result()


def shown(connection: psycopg.Connection, query: str, *values: object) -> object:
    row = connection.execute(query, values).fetchone()
    assert row
    return row[0]


def test_live_workers_stay_while_a_lock_holds_their_heartbeats(
    start: Start, serve: Serve, context: Context, connection: psycopg.Connection, database_url: str
) -> None:
    """For longer than the timeout; four workers would be a mass failure, too."""
    url, _ = serve()
    monitor = start("monitor", "--interval", "0.5", **SHORT)
    names = ["w1", "w2", "w3", "w4"]
    active = "SELECT count(*) FROM container_workers WHERE status = 'active'"
    with beating(url, context, names):
        eventually(lambda: shown(connection, active) == len(names))
        with psycopg.connect(database_url) as other:
            other.execute(HELD_TABLE)
            heard = "SELECT max(last_heartbeat_at) < now() - %s * interval '1 s' FROM container_workers"
            eventually(lambda: shown(connection, heard, TIMEOUT + 3))
        released = shown(connection, "SELECT now()")
        eventually(lambda: shown(connection, "SELECT min(last_heartbeat_at) > %s FROM container_workers", released))
        concluded = "SELECT array_agg(DISTINCT coalesce(to_status, kind)) FROM worker_events WHERE actor = 'monitor'"
        assert shown(connection, concluded) == ["active"]
        outage = "SELECT max(ended_at - started_at) > %s * interval '1 s' FROM serve_outages"
        eventually(lambda: shown(connection, outage, TIMEOUT))
    # their silence counts again
    monitor.until("to=offline")


@pytest.mark.parametrize(("held", "beats"), [(HELD_TABLE, False), (HELD_ROWS, True)], ids=["idle", "waiting"])
def test_serve_is_present_only_as_far_as_heartbeats_can_be_written(
    serve: Serve, context: Context, connection: psycopg.Connection, database_url: str, held: str, beats: bool
) -> None:
    """Where none arrives, too."""
    url, _ = serve()
    with beating(url, context, ["w"]) if beats else psycopg.connect(database_url):
        if beats:
            eventually(lambda: shown(connection, "SELECT count(last_heartbeat_at) FROM container_workers"))
        eventually(lambda: shown(connection, UNSEEN, 2) is False)
        with psycopg.connect(database_url) as other:
            other.execute(held)
            eventually(lambda: shown(connection, UNSEEN, 3))
        eventually(lambda: shown(connection, UNSEEN, 2) is False)


def test_a_monitor_waits_for_a_lock_a_second_and_keeps_its_term(
    start: Start, connection: psycopg.Connection, database_url: str
) -> None:
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=leads term=1")
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE worker_events IN SHARE MODE")
        add_worker(connection, name="w", last_heartbeat_at="now")
        connection.execute("NOTIFY skyctl_news")
        monitor.until("action=put_off")
        lease = shown(connection, "SELECT expires_at FROM monitor_leases")
        eventually(lambda: shown(connection, "SELECT expires_at > %s + interval '6 s' FROM monitor_leases", lease))
    assert "to=active term=1" in monitor.until("name='w'")


def test_one_pass_waits_for_whoever_holds_what_it_needs(
    start: Start, connection: psycopg.Connection, database_url: str
) -> None:
    """For longer than the loop does, which has another pass."""
    add_worker(connection, name="w", last_heartbeat_at="now")
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND now() - query_start > interval '1.5 s'"
    )
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE worker_events IN SHARE MODE")
        once = start("monitor", "--once")
        eventually(lambda: shown(connection, waits) or once.popen.poll() is not None)
    once.until("to=active")
    assert once.popen.wait(PATIENCE_SECONDS) == 0


def test_one_pass_that_fails_gives_the_lead_back(cli: Cli, connection: psycopg.Connection) -> None:
    connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no pass'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE OF last_pass_at ON monitor_leases FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    failed = cli("monitor", "--once")
    assert failed.returncode == 1
    assert "no pass" in failed.stderr
    assert shown(connection, "SELECT max(expires_at) <= skyctl_now() FROM monitor_leases")
