"""In the panel's own database, by the panel's own statements: what its people see, and what its API writes."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from skyctl.domain.cluster import Actor
from skyctl.operations.admin import drains, schema
from skyctl.operations.monitor import alerts
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from tests.conftest import make_context
from tests.support.helpers import add_worker, look

TABLES = (Path(__file__).parents[1] / "support/panel.sql").read_text()


@pytest.fixture
def panel_url(make_database: Callable[[str], str]) -> str:
    """A database of the panel's, to which ours was added."""
    url = make_database("template1")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
    context = make_context(url)
    schema.initialize(context)
    context.db.close()
    return url


@pytest.fixture
def context(panel_url: str) -> Iterator[Context]:
    made = make_context(panel_url)
    yield made
    made.db.close()


@pytest.fixture
def connection(panel_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(panel_url, autocommit=True) as opened:
        yield opened


def monitor(context: Context) -> list[str]:
    """One pass of the monitor; the kinds of the alerts that it raises."""
    look(context)
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    raised = alerts.raise_alerts(term).alerts
    term.release()
    return [alert.kind for alert in raised]


def user(connection: psycopg.Connection, name: str, role: str = "admin") -> UUID:
    row = connection.execute(
        "INSERT INTO users (email, password_hash, name, role) VALUES (%s, '', %s, %s) RETURNING id",
        (f"{name}@example.com", name, role),
    ).fetchone()
    assert row
    user_id: UUID = row[0]
    return user_id


def bell(connection: psycopg.Connection, user_id: UUID) -> list[tuple[str, str]]:
    """What the panel's bell shows to who has signed in: the type and the status of what he has not read."""
    return connection.execute(
        "SELECT event_type, status FROM activity_logs WHERE user_id = %s AND is_read = FALSE "
        "ORDER BY created_at DESC LIMIT 50",
        (user_id,),
    ).fetchall()


def silence(connection: psycopg.Connection, worker_id: UUID, ago: timedelta = timedelta(minutes=5)) -> None:
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() - %s WHERE id = %s", (ago, worker_id))


def test_the_bell_of_each_administrator_rings_and_of_nobody_else(
    context: Context, connection: psycopg.Connection
) -> None:
    first, second, other = user(connection, "a"), user(connection, "b"), user(connection, "c", "user")
    worker_id = add_worker(connection, status="active")
    monitor(context)
    silence(connection, worker_id)
    assert monitor(context) == ["worker_offline"]
    rings = [("alert.worker_offline", "error")]
    assert [bell(connection, who) for who in (first, second, other)] == [rings, rings, []]
    connection.execute("UPDATE activity_logs SET is_read = TRUE, read_at = NOW() WHERE user_id = %s", (first,))
    assert [bell(connection, who) for who in (first, second)] == [[], rings]


def test_what_an_administrator_did_rings_no_bell(context: Context, connection: psycopg.Connection) -> None:
    user_id = user(connection, "a")
    drains.drain(context, [add_worker(connection, status="active")], Actor("a@example.com", user_id))
    assert bell(connection, user_id) == []
    kinds = connection.execute("SELECT event_type FROM activity_logs WHERE user_id = %s", (user_id,)).fetchall()
    assert kinds == [("worker.drain_requested",)]


def heard_by_the_panel(connection: psycopg.Connection, worker_id: UUID, memory_percent: float = 10) -> None:
    """The panel's API hears a heartbeat: it writes the time, the load, and what it takes for the status."""
    load = {"cpuPercent": 5, "memoryPercent": memory_percent, "diskPercent": 10, "containerCount": 1}
    connection.execute(
        "UPDATE container_workers SET current_load = %s, last_heartbeat_at = NOW(), status = 'active', "
        "updated_at = NOW() WHERE id = %s",
        (json.dumps(load), worker_id),
    )


def swept_by_the_panel(connection: psycopg.Connection) -> None:
    """The panel looks for whom its API has not heard, too."""
    connection.execute(
        "UPDATE container_workers SET status = 'offline', updated_at = NOW() "
        "WHERE status IN ('active', 'unhealthy') AND last_heartbeat_at < NOW() - INTERVAL '120 seconds'"
    )


def changes(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """The changes of status in the log."""
    return connection.execute(
        "SELECT from_status, to_status FROM worker_events WHERE kind = 'status_changed' ORDER BY seq"
    ).fetchall()


@pytest.fixture
def worker_id(context: Context, connection: psycopg.Connection) -> UUID:
    """A worker that the panel made and hears; the monitor has seen it."""
    made = add_worker(connection, name="w")
    heard_by_the_panel(connection, made)
    monitor(context)
    connection.execute("DELETE FROM worker_events")
    return made


def test_recovery_is_told_though_the_heartbeat_has_set_the_status(
    context: Context, connection: psycopg.Connection, worker_id: UUID
) -> None:
    silence(connection, worker_id)
    assert monitor(context) == ["worker_offline"]
    heard_by_the_panel(connection, worker_id)
    assert [monitor(context), monitor(context)] == [["worker_recovered"], []]
    assert changes(connection) == [("active", "offline"), ("offline", "active")]


def test_silence_is_told_though_the_panel_has_seen_it_first(
    context: Context, connection: psycopg.Connection, worker_id: UUID
) -> None:
    silence(connection, worker_id)
    swept_by_the_panel(connection)
    assert [monitor(context), monitor(context)] == [["worker_offline"], []]
    heard_by_the_panel(connection, worker_id)
    assert monitor(context) == ["worker_recovered"]
    assert changes(connection) == [("active", "offline"), ("offline", "active")]


def test_a_drained_worker_is_one_event_however_often_the_panel_hears_it(
    context: Context, connection: psycopg.Connection, worker_id: UUID
) -> None:
    drains.drain(context, [worker_id], Actor("tests"))
    for _ in range(4):
        heard_by_the_panel(connection, worker_id)
        assert monitor(context) == []
        assert status(connection) == "draining"
    assert changes(connection) == [("active", "draining")]
    drains.undrain(context, worker_id, Actor("tests"))
    heard_by_the_panel(connection, worker_id)
    monitor(context)
    assert changes(connection) == [("active", "draining"), ("draining", "active")]


def test_an_exhausted_worker_is_told_of_once_however_often_the_panel_hears_it(
    context: Context, connection: psycopg.Connection, worker_id: UUID
) -> None:
    told = []
    for _ in range(4):
        heard_by_the_panel(connection, worker_id, memory_percent=99)
        told += monitor(context)
        assert status(connection) == "unhealthy"
    heard_by_the_panel(connection, worker_id)
    assert [*told, *monitor(context)] == ["worker_unhealthy", "worker_recovered"]
    assert changes(connection) == [("active", "unhealthy"), ("unhealthy", "active")]


def test_what_the_panel_writes_in_between_makes_nobody_flap(
    context: Context, connection: psycopg.Connection, worker_id: UUID
) -> None:
    since = "SELECT status_changed_at FROM container_workers"
    heard_by_the_panel(connection, worker_id, memory_percent=99)
    monitor(context)
    before = connection.execute(since).fetchone()
    for _ in range(6):
        heard_by_the_panel(connection, worker_id, memory_percent=99)
        monitor(context)
    assert connection.execute(since).fetchone() == before
    assert connection.execute("SELECT count(*) FROM worker_events WHERE kind = 'flapping'").fetchone() == (0,)


def status(connection: psycopg.Connection) -> str:
    row = connection.execute("SELECT status FROM container_workers").fetchone()
    assert row
    stored: str = row[0]
    return stored
