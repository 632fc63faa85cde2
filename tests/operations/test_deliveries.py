"""What goes first by a channel, and what goes as one message."""

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from types import NoneType
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.notifiers import apprise
from skyctl.operations.monitor import deliveries
from skyctl.operations.shared.context import Context
from skyctl.store.db import Database
from tests.conftest import Process, make_context
from tests.support.fakes import FakeNotifier
from tests.support.helpers import PATIENCE_SECONDS, eventually
from tests.support.webhook import Webhook, webhook

Start = Callable[..., Process]
STORM = 1000


@pytest.fixture
def notifier() -> FakeNotifier:
    return FakeNotifier()


@pytest.fixture
def context(database_url: str, notifier: FakeNotifier) -> Iterator[Context]:
    made = make_context(database_url, notifier=notifier)
    yield made
    made.db.close()


def queue(
    connection: psycopg.Connection, kind: str, title: str, worker_id: UUID | None = None, **metadata: object
) -> None:
    """An alert that waits for the fake's channel."""
    connection.execute(
        """
        WITH alert AS (
            INSERT INTO worker_alerts (kind, worker_id, title, message, metadata)
            VALUES (%s, %s, %s, %s, %s) RETURNING id
        )
        INSERT INTO alert_deliveries (alert_id, channel) SELECT id, 'fake:1' FROM alert
        """,
        (kind, worker_id, title, f"{title}: so it is", Jsonb(metadata)),
    )


def deliver(context: Context) -> Sequence[Alert]:
    with context.notifier().opened("fake:1") as send:
        return deliveries.deliver_next(context, "fake:1", send)


def deliver_all(context: Context) -> None:
    while deliver(context):
        pass


def test_the_newest_of_the_gravest_goes_first(
    context: Context, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    kinds = ("worker_recovered", "worker_offline", "worker_unhealthy", "migration_summary", "mass_failure")
    for number, kind in enumerate((*kinds, *kinds)):
        queue(connection, kind, f"{kind} {number}", None if kind == "mass_failure" else uuid4())
    deliver_all(context)
    assert [title for title, _ in notifier.arrived] == [
        *("mass_failure 9", "worker_offline 6", "mass_failure 4", "worker_offline 1"),
        *("worker_unhealthy 7", "worker_unhealthy 2"),
        *("migration_summary 8", "worker_recovered 5", "migration_summary 3", "worker_recovered 0"),
    ]


def test_what_comes_while_others_wait_goes_next(
    context: Context, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    for number in range(3):
        queue(connection, "worker_offline", f"old {number}", uuid4())
    deliver(context)
    queue(connection, "worker_offline", "new", uuid4())
    deliver_all(context)
    assert [title for title, _ in notifier.arrived] == ["old 2", "new", "old 1", "old 0"]


def test_repeated_alerts_of_an_incident_are_one_message(
    context: Context, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    worker = uuid4()
    for _ in range(3):
        queue(connection, "worker_offline", "Worker w is offline", worker)
        queue(connection, "worker_recovered", "Worker w has recovered", worker)
    queue(connection, "worker_offline", "Worker w is offline", worker)
    queue(connection, "manual_migration_required", "2 containers wait", worker)
    queue(connection, "mass_failure", "9 of 12 fell silent", massFailureId=7)
    queue(connection, "mass_recovery", "9 are back", massFailureId=7)
    queue(connection, "worker_offline", "6 workers are offline")
    queue(connection, "worker_offline", "7 workers are offline")
    deliver_all(context)
    before = "3 x Worker w has recovered, 3 x Worker w is offline"
    assert notifier.arrived == [
        ("7 workers are offline", "7 workers are offline: so it is"),
        ("6 workers are offline", "6 workers are offline: so it is"),
        (
            "Worker w is offline (7 alerts)",
            f"Worker w is offline: so it is\nThe newest of 7 alerts of it that waited; before: {before}.",
        ),
        ("2 containers wait", "2 containers wait: so it is"),
        (
            "9 are back (2 alerts)",
            "9 are back: so it is\nThe newest of 2 alerts of it that waited; before: 9 of 12 fell silent.",
        ),
    ]
    waiting = connection.execute("SELECT count(*) FROM alert_deliveries WHERE delivered_at IS NULL").fetchone()
    assert waiting == (0,)


def test_what_was_tried_before_does_not_arrive_after_what_is_newer(
    context: Context, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    worker = uuid4()
    queue(connection, "worker_offline", "Worker w is offline", worker)
    notifier.fails.append(True)
    with pytest.raises(ChannelFailed):
        deliver(context)
    notifier.fails.clear()
    context.db.ahead = -timedelta(hours=1)
    assert not deliver(context), "not before it is due"
    context.db.ahead = timedelta(0)
    queue(connection, "worker_recovered", "Worker w has recovered", worker)
    deliver(context)
    context.db.ahead = timedelta(hours=1)
    assert not deliver(context)
    assert [title for title, _ in notifier.arrived] == ["Worker w has recovered (2 alerts)"]


def test_what_only_goes_along_is_not_given_up(
    context: Context, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    worker = uuid4()
    notifier.fails.append(True)
    for number in range(45):
        queue(connection, "worker_offline", f"Worker w is offline {number}", worker)
        with pytest.raises(ChannelFailed):
            deliver(context)
    assert connection.execute("SELECT max(attempts) FROM alert_deliveries").fetchone() == (1,)
    notifier.fails.clear()
    context.db.ahead = timedelta(hours=1)
    deliver(context)
    assert [title for title, _ in notifier.arrived] == ["Worker w is offline 44 (45 alerts)"]


def test_a_channel_that_fails_is_said_once_and_so_is_that_it_takes_alerts_again(
    start: Start, connection: psycopg.Connection
) -> None:
    with webhook() as hook:
        hook.fails.append(True)
        queue_storm(connection, hook, number=20)
        monitor = start("monitor", "--interval", "3600", SKYCTL_ALERT_CHANNELS=hook.url)
        failing = "SELECT count(*) = 20 FROM alert_deliveries WHERE error IS NOT NULL"
        eventually(lambda: connection.execute(failing).fetchone() == (True,))
        hook.fails.clear()
        assert int(re.findall(r"failures=(\d+)", monitor.until("action=channel_takes_alerts"))[0]) >= 20
        assert len([line for line in monitor.seen if "action=alert_not_delivered" in line]) == 1
        assert monitor.stop(signal.SIGTERM) == 0


def test_a_storm_of_alerts_arrives_whole_and_in_order_while_another_channel_hangs(
    start: Start, connection: psycopg.Connection
) -> None:
    with webhook() as hook, webhook() as hanging:
        hanging.answers.clear()
        queue_storm(connection, hook, hanging)
        monitor = start("monitor", "--interval", "3600", SKYCTL_ALERT_CHANNELS=f"{hanging.url} {hook.url}")
        monitor.until("alert=2 ")  # the oldest of the less grave ones
        newest_first = range(STORM, 0, -1)
        grave = [f"worker_offline {number}" for number in newest_first if number % 2]
        others = [f"worker_unhealthy {number}" for number in newest_first if not number % 2]
        assert [title for title, _ in hook.arrived] == grave + others
        assert hanging.arrived == []
        assert monitor.stop(signal.SIGTERM) == 0


def queue_storm(connection: psycopg.Connection, *hooks: Webhook, number: int = STORM) -> None:
    """Alerts of as many workers wait for each of the channels."""
    connection.execute(
        """
        WITH storm AS (
            INSERT INTO worker_alerts (kind, worker_id, title, message)
            SELECT kind, gen_random_uuid(), kind || ' ' || number, 'so it is'
            FROM generate_series(1, %s) AS number,
                 LATERAL (SELECT CASE number %% 2 WHEN 1 THEN 'worker_offline' ELSE 'worker_unhealthy' END AS kind) k
            ORDER BY number RETURNING id
        )
        INSERT INTO alert_deliveries (alert_id, channel) SELECT id, channel FROM storm, unnest(%s::text[]) AS channel
        """,
        (number, list(apprise.names([hook.url for hook in hooks]))),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_done_is_noted_whoever_holds_a_lock_meanwhile(
    database_url: str, connection: psycopg.Connection, fails: bool
) -> None:
    """For longer than a monitor waits for a lock: else it would be done again."""
    queue(connection, "worker_offline", "w")
    holder = psycopg.connect(database_url)

    def send(_message: object) -> None:
        holder.execute("LOCK TABLE alert_deliveries IN SHARE MODE")
        if fails:
            raise ChannelFailed("no", "")

    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND now() - query_start > interval '1.5 s'"
    )
    made = make_context(database_url, notifier=FakeNotifier())
    with (
        closing(made.db),
        closing(Database(database_url, limits_lock_waits=True)) as db,
        holder,
        ThreadPoolExecutor(1) as pool,
    ):
        done = pool.submit(deliveries.deliver_next, replace(made, db=db), "fake:1", send)
        eventually(lambda: done.done() or connection.execute(waits).fetchone() != (0,))
        holder.rollback()
        assert isinstance(done.exception(PATIENCE_SECONDS), ChannelFailed if fails else NoneType)
    noted = "SELECT delivered_at IS NOT NULL, error IS NOT NULL FROM alert_deliveries"
    assert connection.execute(noted).fetchone() == (not fails, fails)
