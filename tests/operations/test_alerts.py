"""Alerts: to the people in the database and to whoever listens, exactly once; to channels, until they arrive."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psutil
import psycopg
import pytest

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.notifiers import apprise
from skyctl.operations import admin
from skyctl.operations.monitor import alerts, deliveries
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context, Send
from skyctl.store import alerts as store
from skyctl.store import db
from tests.conftest import Cli, Process, make_context
from tests.support.fakes import FakeNotifier
from tests.support.helpers import PATIENCE_SECONDS, add_user, add_worker, eventually, look
from tests.support.webhook import Webhook, webhook

pytestmark = pytest.mark.in_process

Start = Callable[..., Process]
Follow = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def notifier() -> FakeNotifier:
    return FakeNotifier()


@pytest.fixture
def context(database_url: str, notifier: FakeNotifier) -> Iterator[Context]:
    made = make_context(database_url, notifier=notifier)
    yield made
    made.db.close()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as opened:
        yield opened


def raise_alerts(context: Context) -> alerts.RaisedAlerts:
    lease = leadership.lead(context, "tests", lambda _: True)
    assert lease
    return alerts.raise_alerts(lease)


def silence(connection: psycopg.Connection, name: str = "w") -> None:
    """A worker that has been silent for too long."""
    worker_id = add_worker(connection, name=name, status="active")
    connection.execute(
        "UPDATE container_workers SET last_heartbeat_at = now() - interval '5 min' WHERE id = %s", (worker_id,)
    )


def healthy(connection: psycopg.Connection, count: int = 4) -> None:
    """Workers that are heard from, beside which a few silent ones are no mass failure."""
    for _ in range(count):
        add_worker(connection, status="active", last_heartbeat_at=datetime.now(UTC))


ODD_NAMES = ['it\'s "quoted" \\ $1 %s; DROP', "😀" * 255, "w"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=["quotes", "emoji", "plain"])
def test_people_and_listeners_hear_of_it_as_it_is(context: Context, connection: psycopg.Connection, name: str) -> None:
    admin, _ = add_user(connection)
    add_user(connection, "user")
    raise_alerts(context)
    silence(connection, name)
    connection.execute("LISTEN worker_alerts")
    look(context)
    [alert] = raise_alerts(context).alerts
    assert name in alert.message
    rows = connection.execute(
        "SELECT user_id, type, message, metadata ->> 'workerName', read FROM notifications"
    ).fetchall()
    assert rows == [(admin, "worker_offline", alert.message, name, False)]
    logged = connection.execute(
        "SELECT event_type, entity_type, message, status, user_id, is_read FROM activity_logs "
        "ORDER BY user_id NULLS FIRST"
    ).fetchall()
    said = ("alert.worker_offline", alert.message, "error")
    assert [(row[0], *row[2:4]) for row in logged] == [said, said]
    assert [(row[1], *row[4:]) for row in logged] == [("system", None, False), ("worker", admin, False)]
    [heard] = connection.notifies(timeout=PATIENCE_SECONDS, stop_after=1)
    document = json.loads(heard.payload)
    assert set(document) == {"workerId", "alertType", "metadata"}
    assert document["alertType"] == "worker_offline"
    assert document["workerId"] == str(alert.worker_id)
    assert document["metadata"]["workerName"] == name
    assert raise_alerts(context).alerts == [], "once"


def test_what_a_notification_cannot_hold_is_found_by_its_number(
    context: Context, connection: psycopg.Connection
) -> None:
    add_user(connection)
    raise_alerts(context)
    for number in range(60):
        silence(connection, f"{number:02d}-{'ü' * 200}")
    connection.execute("LISTEN worker_alerts")
    look(context)
    [alert] = raise_alerts(context).alerts
    [heard] = connection.notifies(timeout=PATIENCE_SECONDS, stop_after=1)
    metadata = json.loads(heard.payload)["metadata"]
    assert metadata["truncated"] is True
    stored = connection.execute(
        "SELECT message, metadata FROM worker_alerts WHERE id = %s", (metadata["alertId"],)
    ).fetchone()
    assert stored == (alert.message, dict(alert.metadata))
    assert len(alert.metadata["workers"]) == 60


def test_an_event_whose_alert_is_refused_keeps_nobody_from_hearing_of_the_others(
    context: Context, connection: psycopg.Connection
) -> None:
    add_user(connection)
    raise_alerts(context)
    connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.message LIKE '%poison%' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON worker_alerts FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    healthy(connection)
    for name in ("good", "poison", "well"):
        silence(connection, name)
        look(context)
    raised = raise_alerts(context)
    assert [event.worker_name for event in raised.poison] == ["poison"]
    told = connection.execute("SELECT metadata ->> 'workerName' FROM notifications ORDER BY 1").fetchall()
    assert told == [("good",), ("well",)]


def test_a_worker_that_cannot_be_changed_keeps_no_other_from_it(
    context: Context, connection: psycopg.Connection
) -> None:
    healthy(connection)
    for name in ("good", "poison", "well"):
        silence(connection, name)
    connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.name = 'poison' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON container_workers FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    done = look(context)
    assert [poison.worker.name for poison in done.poison] == ["poison"]
    changed = {event.worker_name for event in done.events if event.kind == "status_changed"}
    assert changed == {"good", "well"}


def deliver(context: Context, channel: str) -> Sequence[Alert]:
    """Deliver what is to go next by a channel."""
    with context.notifier().opened(channel) as send:
        return deliveries.deliver_next(context, channel, send)


def fail_and_wait(context: Context, channel: str, pause: timedelta) -> None:
    """Fail to deliver what is due; it is due again after the pause, however long the attempt itself took."""
    with context.db.transaction() as tx:
        before = db.now(tx)
    with pytest.raises(ChannelFailed):
        deliver(context, channel)
    with context.db.transaction() as tx:
        due = store.next_due_at(tx, channel)
        assert due
        assert before + pause <= due <= db.now(tx) + pause


def test_a_delivery_is_tried_again_until_it_arrives(
    context: Context, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    raise_alerts(context)
    silence(connection)
    look(context)
    [alert] = raise_alerts(context).alerts
    notifier.fails.append(True)
    fail_and_wait(context, notifier.channel, timedelta(seconds=5))
    context.db.ahead = -timedelta(hours=1)
    assert not deliver(context, notifier.channel), "not before it is due"
    assert (deliveries.seconds_to_next(context, notifier.channel) or 0) > 0
    context.db.ahead = timedelta(hours=1)
    assert deliveries.seconds_to_next(context, notifier.channel) == 0
    fail_and_wait(context, notifier.channel, timedelta(seconds=10))
    notifier.fails.clear()
    context.db.ahead = timedelta(hours=2)
    assert deliver(context, notifier.channel)
    assert notifier.arrived == [(alert.title, alert.message)]
    assert not deliver(context, notifier.channel)
    assert admin.alerts.latest(context, 10)[0][0][1:] == (1, 0, 0)


def test_a_delivery_is_given_up_in_the_end(
    context: Context, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    raise_alerts(context)
    silence(connection)
    look(context)
    raise_alerts(context)
    notifier.fails.append(True)
    for attempt in range(deliveries.MOST_ATTEMPTS):
        context.db.ahead = timedelta(hours=attempt)
        with pytest.raises(ChannelFailed):
            deliver(context, notifier.channel)
    assert deliveries.seconds_to_next(context, notifier.channel) is None
    assert admin.alerts.latest(context, 10)[0][0][1:] == (0, 0, 1)


def test_a_channel_that_hangs_holds_up_neither_the_monitor_nor_another_channel(
    start: Start, connection: psycopg.Connection, hook: Webhook
) -> None:
    with webhook() as hanging:
        hanging.answers.clear()
        monitor = start("monitor", "--interval", "3600", SKYCTL_ALERT_CHANNELS=f"{hanging.url} {hook.url}")
        monitor.until("action=leads")
        for name in ("first", "second"):
            silence(connection, name)
            connection.execute("NOTIFY skyctl_news")
            monitor.until(f"action=alert kind=worker_offline title='Worker {name} is offline'")
        eventually(lambda: len(hook.arrived) == 2)
        assert hanging.asked.wait(PATIENCE_SECONDS)
        assert hanging.arrived == []
        assert monitor.stop(signal.SIGTERM) == 0


@pytest.fixture
def dripping() -> Iterator[Webhook]:
    with webhook() as opened:
        opened.drip()
        yield opened


def test_a_monitor_ends_while_a_channel_hangs_and_so_does_what_it_sends_by(
    start: Start, connection: psycopg.Connection, dripping: Webhook
) -> None:
    monitor = start("monitor", "--interval", "3600", SKYCTL_ALERT_CHANNELS=dripping.url)
    monitor.until("action=leads")
    silence(connection)
    connection.execute("NOTIFY skyctl_news")
    assert dripping.asked.wait(PATIENCE_SECONDS)
    [sender] = psutil.Process(monitor.popen.pid).children()
    assert "hook-with-a-secret" not in " ".join(sender.cmdline())
    assert monitor.stop(signal.SIGTERM) == 0
    eventually(lambda: has_ended(sender))


def has_ended(process: psutil.Process) -> bool:
    """Whether it has; init may not have noticed yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_one_pass_ends_while_several_channels_hang(
    cli: Cli, context: Context, connection: psycopg.Connection, dripping: Webhook
) -> None:
    raise_alerts(context)
    connection.execute("UPDATE monitor_leases SET expires_at = now()")
    silence(connection)
    urls = " ".join(f"{dripping.url}-{number}" for number in range(4))
    assert cli("monitor", "--once", SKYCTL_ALERT_CHANNELS=urls).returncode == 0
    assert dripping.most_open > 1, "one limit for all of them, not one after the other"


@dataclass
class Meeting:
    """Channels that take an alert once each of them was asked."""

    all_asked: threading.Barrier

    @contextmanager
    def opened(self, channel: str) -> Iterator[Send]:
        def send(_alert: Alert) -> None:
            self.all_asked.wait(PATIENCE_SECONDS)
            if channel == "bad":
                raise ChannelFailed("did not take it")

        yield send


def test_all_channels_are_tried_at_once(context: Context) -> None:
    meeting = Meeting(threading.Barrier(3))
    channels = ("good", "bad", "well")
    tried = admin.alerts.try_channels(replace(context, notifier=lambda: meeting, channels=channels), "text")
    assert list(tried.items()) == [("good", ""), ("bad", "did not take it"), ("well", "")]


def test_one_pass_delivers_what_it_raised(
    cli: Cli, context: Context, connection: psycopg.Connection, hook: Webhook
) -> None:
    raise_alerts(context)
    connection.execute("UPDATE monitor_leases SET expires_at = now()")
    silence(connection, "w")
    done = cli("monitor", "--once", SKYCTL_ALERT_CHANNELS=hook.url)
    assert done.returncode == 0, done.stderr
    assert [title for title, _ in hook.arrived] == ["Worker w is offline"]
    assert hook.url.rpartition("/")[2] not in done.stderr
    listed = json.loads(cli("alerts", "list", "-o", "json").stdout)["alerts"]
    assert [(alert["kind"], alert["deliveries"]["delivered"]) for alert in listed] == [("worker_offline", 1)]
    table = cli("alerts", "list").stdout
    assert "worker_offline" in table
    assert "1 delivered" in table


def test_trying_the_channels(cli: Cli, hook: Webhook) -> None:
    text = "one line\nand another"
    tried = cli("alerts", "test", "--message", text, SKYCTL_ALERT_CHANNELS=hook.url)
    assert (tried.returncode, hook.arrived) == (0, [("Test of skyctl's alerts", text)])
    some = cli("alerts", "test", SKYCTL_ALERT_CHANNELS=f"{hook.url} json://127.0.0.1:1/secret")
    assert some.returncode == 7
    heading, first, second = some.stdout.splitlines()
    assert heading.split() == ["NO.", "CHANNEL", "RESULT"]
    assert first.split() == ["1", *apprise.names([hook.url]), "delivered"]
    [failing] = apprise.names(["json://127.0.0.1:1/secret"])
    assert second == f"2    {failing}  the channel {failing} did not take the alert: Connection refused"
    assert "secret" not in some.stdout + some.stderr
    assert cli("alerts", "test", SKYCTL_ALERT_CHANNELS="json://127.0.0.1:1/x").returncode == 5
    none = cli("alerts", "test")
    assert none.returncode == 0
    assert "SKYCTL_ALERT_CHANNELS" in none.stderr
    wrong = cli("alerts", "test", SKYCTL_ALERT_CHANNELS="no-url-at-all")
    assert wrong.returncode == 2
    assert "no-url-at-all" not in wrong.stderr, "it may be half a secret"


def test_following_the_alerts(follow: Follow, context: Context, connection: psycopg.Connection) -> None:
    raise_alerts(context)
    silence(connection, "w1")
    look(context)
    raise_alerts(context)
    follower = follow("alerts", "follow", "-o", "json")
    assert follower.stdout
    first = json.loads(follower.stdout.readline())
    silence(connection, "w2")
    look(context)
    raise_alerts(context)
    second = json.loads(follower.stdout.readline())
    assert [one["metadata"]["workerName"] for one in (first, second)] == ["w1", "w2"]
    follower.send_signal(signal.SIGINT)
    assert follower.wait(PATIENCE_SECONDS) == 0


def test_letting_moves_go_on(cli: Cli, context: Context, connection: psycopg.Connection) -> None:
    raise_alerts(context)
    for name in ("a", "b", "c"):
        silence(connection, name)
    look(context)
    assert [alert.kind for alert in raise_alerts(context).alerts] == ["mass_failure"]
    resumed = cli("migrations", "resume", "--yes")
    assert (resumed.returncode, resumed.stdout) == (0, "resumed for 3 workers\n")
    again = cli("migrations", "resume", "--yes")
    assert (again.stdout, again.stderr) == ("", "nothing is held\n")
    lifted = connection.execute("SELECT lifted_by LIKE 'cli:%' FROM mass_failures").fetchall()
    assert lifted == [(True,)]
    assert "migrations_resumed" in cli("events").stdout


def test_a_whole_fleet_that_falls_silent_is_concluded_in_parts_and_told_once(
    context: Context, connection: psycopg.Connection
) -> None:
    raise_alerts(context)
    connection.execute("""
        INSERT INTO container_workers (name, hostname, ip_address, auth_token_hash, status, last_heartbeat_at)
        SELECT 'w' || number, 'h', '10.0.0.1', 'x', 'active', now() - interval '5 min'
        FROM generate_series(1, 2500) number
    """)
    look(context)
    assert [alert.kind for alert in raise_alerts(context).alerts] == ["mass_failure"]
    offline = connection.execute("SELECT count(*) FROM container_workers WHERE status = 'offline'").fetchone()
    assert offline == (2500,)
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now(), current_load = '{\"cpuPercent\": 99}'")
    look(context)
    told = [(alert.kind, alert.metadata.get("count")) for alert in raise_alerts(context).alerts]
    assert told == [("mass_recovery", None), ("worker_unhealthy", 2500)]


def test_a_region_of_any_length_fails_as_one(context: Context, connection: psycopg.Connection) -> None:
    raise_alerts(context)
    for name in ("a", "b", "c"):
        silence(connection, name)
    connection.execute("UPDATE container_workers SET metadata = jsonb_build_object('region', repeat('r', 1000))")
    healthy(connection, 10)
    look(context)
    assert [alert.kind for alert in raise_alerts(context).alerts] == ["mass_failure"]
    assert connection.execute("SELECT region FROM mass_failures").fetchall() == [("r" * 1000,)]
