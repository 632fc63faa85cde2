"""The log of events: no gap, no repetition, whoever writes at the same time and whatever is restarted."""

import json
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest

from skyctl.domain.cluster import Actor, Event
from skyctl.domain.drains import DrainOptions
from skyctl.domain.events import EventKind
from skyctl.operations.admin import drains, events
from skyctl.operations.shared.context import Context
from skyctl.store import events as log
from tests.conftest import Cli, make_context
from tests.support.helpers import PATIENCE_SECONDS, TESTS, add_user, add_worker

pytestmark = pytest.mark.in_process

Follow = Callable[..., "subprocess.Popen[str]"]
WRITERS, EACH = 8, 20


def drain_and_undrain(context: Context, worker_id: UUID) -> None:
    for _ in range(EACH):
        drains.drain(context, [worker_id], TESTS)
        drains.undrain(context, worker_id, TESTS)


def test_followers_miss_nothing_and_repeat_nothing(
    follow: Follow, database_url: str, connection: psycopg.Connection
) -> None:
    """Eight write at once, others roll back; the follower is killed in the middle and goes on where it was."""
    context = make_context(database_url, connections=WRITERS)  # one waits for another's lock, never for a connection
    ids = [add_worker(connection, status="active") for _ in range(WRITERS)]
    seen: list[int] = []
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        writing = [pool.submit(drain_and_undrain, context, worker_id) for worker_id in ids]
        writing.append(pool.submit(roll_back, connection))
        follower = follow("events", "--follow", "--since", "0", "-o", "json")
        assert follower.stdout
        seen += (read(follower) for _ in range(WRITERS * EACH // 2))
        follower.send_signal(signal.SIGKILL)
        follower.wait(PATIENCE_SECONDS)
        for each in writing:
            each.result(PATIENCE_SECONDS)
    context.db.close()
    written = [row[0] for row in connection.execute("SELECT seq FROM worker_events ORDER BY seq")]
    assert len(written) == 2 * WRITERS * EACH
    follower = follow("events", "--follow", "--since", str(seen[-1]), "-o", "json")
    assert follower.stdout
    while len(seen) < len(written):
        seen.append(read(follower))
    follower.send_signal(signal.SIGTERM)
    assert follower.wait(PATIENCE_SECONDS) == 0
    assert follower.stdout.read() == ""
    assert seen == written


def test_very_many_at_once_are_numbered_in_their_order(context: Context) -> None:
    new = [Event(EventKind.SETTLED, None, None, "tests", reason=str(number)) for number in range(2500)]
    with context.db.transaction() as tx:
        log.lock(tx)
        written = log.append(tx, *new)
        assert log.since(tx, 0, len(new)) == written
    assert [event.reason for event in written] == [event.reason for event in new]


def read(follower: "subprocess.Popen[str]") -> int:
    """The number of the next event that it shows."""
    assert follower.stdout
    return int(json.loads(follower.stdout.readline())["seq"])


def roll_back(connection: psycopg.Connection) -> None:
    """Take numbers that nobody will ever see."""
    for _ in range(EACH):
        with connection.transaction(force_rollback=True):
            connection.execute("SELECT skyctl_lock_events()")
            connection.execute("INSERT INTO worker_events (kind) VALUES ('stopped')")


def test_an_event_appears_only_after_those_before_it(
    context: Context, connection: psycopg.Connection, database_url: str
) -> None:
    """Who has written but not yet committed holds up whoever would get a higher number."""
    worker_id = add_worker(connection, status="active")
    with psycopg.connect(database_url) as slow, ThreadPoolExecutor(1) as pool:
        slow.execute("SELECT skyctl_lock_events()")
        slow.execute("INSERT INTO worker_events (kind) VALUES ('stopped')")
        fast = pool.submit(drains.drain, context, [worker_id], TESTS)
        assert events.since(context, 0) == []
        slow.commit()
        fast.result(PATIENCE_SECONDS)
    assert [event.kind for event in events.since(context, 0)] == ["stopped", "drain_requested"]


def test_looking_at_the_log(cli: Cli, context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, name="w\x1b[31m", status="active")
    drains.drain(context, [worker_id], TESTS, DrainOptions("new\ndisks"))
    drains.undrain(context, worker_id, TESTS)
    lines = cli("events").stdout.splitlines()
    assert len(lines) == 2
    assert "drain_requested w\\x1b[31m: new\\ndisks (tests)" in lines[0]
    document = json.loads(cli("events", "-o", "json").stdout)
    assert [event["kind"] for event in document["events"]] == ["drain_requested", "drain_cancelled"]
    first = document["events"][0]
    assert (first["reason"], first["workerId"], first["actor"]) == ("new\ndisks", str(worker_id), "tests")
    assert cli("events", "--since", str(first["seq"]), "-o", "name").stdout == f"{first['seq'] + 1}\n"
    assert cli("events", "--limit", "1", "-o", "name").stdout == f"{first['seq'] + 1}\n"
    assert cli("events", "--since", "-1").returncode == 2


def test_what_an_administrator_did_is_no_news_to_him(context: Context, connection: psycopg.Connection) -> None:
    user_id, email = add_user(connection)
    drains.drain(context, [add_worker(connection, name="w", status="active")], Actor(email, user_id))
    rows = connection.execute("SELECT user_id, event_type, is_read, read_at = created_at FROM activity_logs").fetchall()
    assert rows == [(user_id, "worker.drain_requested", True, True)]


def test_every_operation_of_an_administrator_is_in_the_activity_log(cli: Cli, connection: psycopg.Connection) -> None:
    add_worker(connection, name="w", status="active")
    invited = cli("workers", "install-script", "--name", "new", SSH_CONNECTION="192.0.2.7 50000 192.0.2.1 22")
    assert invited.returncode == 0
    assert cli("workers", "remove", "w", "--yes").returncode == 0
    rows = connection.execute(
        "SELECT event_type, entity_type, user_id, ip_address, metadata ->> 'actor' LIKE 'cli:%' "
        "FROM activity_logs ORDER BY created_at"
    ).fetchall()
    assert rows == [
        ("worker.invited", "system", None, "192.0.2.7", True),
        ("worker.removed", "system", None, "local", True),
    ]
