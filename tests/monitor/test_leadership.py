"""Two monitors never act twice, and a kill -9 costs nothing."""

import itertools
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa

from skyctl.domain.cluster import AlertPolicy, HealthPolicy
from skyctl.domain.errors import LostLead
from skyctl.host.signals import Stop
from skyctl.monitor.loop import Monitor, has_ended
from skyctl.monitor.metrics import Meters
from skyctl.operations.monitor import alerts, health
from skyctl.operations.shared import clock, leadership
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, Process, make_context
from tests.support.helpers import PATIENCE_SECONDS, add_user, add_worker, eventually

Start = Callable[..., Process]
MOMENTS = 96  # by what a monitor does in the database: more than its first pass takes, with the alerts
FEWEST_TERMS = 10
WORKERS = 4


def nobody(_holder: str) -> bool:
    return False


def test_one_leads_and_a_new_term_ends_the_old_one(context: Context) -> None:
    first = leadership.lead(context, "a", nobody)
    assert first
    assert leadership.lead(context, "b", nobody) is None
    first.renew()
    context.db.ahead = timedelta(seconds=14)
    assert leadership.lead(context, "b", nobody) is None, "the lease stands"
    context.db.ahead = timedelta(seconds=16)
    second = leadership.lead(context, "b", nobody)
    assert second
    assert second.number == first.number + 1
    for write in (leadership.Term.renew, lambda term: health.check(term, clock.Watch()), alerts.raise_alerts):
        with pytest.raises(LostLead):
            write(first)
    first.release()
    second.renew()
    second.release()
    assert leadership.lead(context, "c", nobody), "at once"


def test_a_lease_that_ran_out_is_lost_also_where_nobody_took_it(context: Context) -> None:
    term = leadership.lead(context, "a", nobody)
    assert term
    context.db.ahead = timedelta(seconds=16)
    with pytest.raises(LostLead):
        health.check(term, clock.Watch())


def test_whoever_reads_for_long_keeps_the_lease_and_notices_where_it_is_lost(context: Context) -> None:
    term = leadership.lead(context, "a", nobody)
    assert term
    reading = term.reading_on(renew_after=timedelta())
    for seconds in (10, 20, 30):
        context.db.ahead = timedelta(seconds=seconds)
        with reading():
            pass
    term.renew()
    context.db.ahead = timedelta(seconds=60)
    with pytest.raises(LostLead), reading():
        pass


def test_who_lost_the_database_leads_again_at_once_in_a_new_term(context: Context) -> None:
    first, second = (leadership.lead(context, "a", nobody) for _ in range(2))
    assert first
    assert second
    assert second.number == first.number + 1
    with pytest.raises(LostLead):
        health.check(first, clock.Watch())


def test_who_is_known_to_have_ended_holds_nobody_up(context: Context) -> None:
    assert leadership.lead(context, "a", nobody)
    assert leadership.lead(context, "b", lambda holder: holder == "a")
    assert has_ended("another-host:1:x") is False
    assert has_ended("nonsense") is False


def test_only_here_a_process_is_known_to_have_ended(start: Start, connection: psycopg.Connection) -> None:
    """The same host name and process id elsewhere, as in a cloned machine or another container, say nothing."""
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=leads")
    row = connection.execute("SELECT holder FROM monitor_leases").fetchone()
    assert row
    host, pid, place = row[0].split(":")
    assert not has_ended(row[0])
    monitor.stop(signal.SIGKILL)
    assert has_ended(row[0])
    assert not has_ended(f"{host}:{pid}:elsewhere-{place.partition('-')[2]}")


def test_a_frozen_monitor_comes_back_and_writes_nothing(start: Start, connection: psycopg.Connection) -> None:
    first = start("monitor", "--interval", "1")
    first.until("action=leads term=1")
    second = start("monitor", "--interval", "1")
    second.until("action=stands_by")
    first.popen.send_signal(signal.SIGSTOP)
    frozen_at = database_time(connection)
    second.until("action=leads term=2")
    add_worker(connection, name="fresh", last_heartbeat_at=database_time(connection))
    second.until("name='fresh'")
    eventually(lambda: database_time(connection) - frozen_at > 2 * leadership.TTL)
    add_worker(connection, name="late", last_heartbeat_at=database_time(connection))
    first.popen.send_signal(signal.SIGCONT)
    first.until("action=lost_lead term=1")
    first.until("action=stands_by")
    second.until("name='late'")
    changes = connection.execute("SELECT worker_name, term FROM worker_events ORDER BY seq").fetchall()
    assert [name for name, _ in changes] == ["fresh", "late"]
    assert min(term for _, term in changes) > 1
    assert second.stop(signal.SIGTERM) == 0
    first.until("action=leads")
    assert first.stop(signal.SIGTERM) == 0


def test_one_that_is_frozen_within_a_transaction_loses_its_locks_and_goes_on(
    start: Start, connection: psycopg.Connection, database_url: str
) -> None:
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=leads term=1")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
    left = ours + "state = 'idle in transaction'"
    held = ours + "(state = 'idle in transaction' OR wait_event_type = 'Lock')"  # its threads may wait for each other
    with psycopg.connect(database_url) as other:
        other.execute("SELECT skyctl_lock_events()")
        add_worker(connection, name="w", last_heartbeat_at=database_time(connection))
        connection.execute("NOTIFY skyctl_news")
        eventually(lambda: connection.execute(sessions).fetchone() == (1,))
        monitor.popen.send_signal(signal.SIGSTOP)
        other.commit()
    eventually(lambda: connection.execute(left).fetchone() != (0,))
    eventually(lambda: connection.execute(held).fetchone() == (0,))
    monitor.popen.send_signal(signal.SIGCONT)
    monitor.until("name='w'")  # of the same term, where it was its migrator that waited for the log
    assert connection.execute("SELECT worker_name FROM worker_events").fetchall() == [("w",)]
    assert monitor.stop(signal.SIGTERM) == 0


def database_time(connection: psycopg.Connection):  # type: ignore[no-untyped-def]
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row
    return row[0]


def test_two_from_cron_do_not_act_twice(cli: Cli, start: Start) -> None:
    leader = start("monitor", "--interval", "3600")
    leader.until("action=leads")
    once = cli("monitor", "--once")
    assert once.returncode == 0
    assert "another monitor leads" in once.stderr
    assert leader.stop(signal.SIGTERM) == 0
    assert "another monitor leads" not in cli("monitor", "--once").stderr


def lively(url: str) -> Context:
    """Nothing here is a mass failure, flapping, or told with others, so that each change has an alert of its own."""
    return make_context(
        url, health=HealthPolicy(mass_workers=1000, flap_transitions=10**6), alerting=AlertPolicy(one_by_one=1000)
    )


def monitor(url: str, moment: int) -> None:
    """Run a whole monitor, in a process of its own, until it kills itself at a moment: before a statement, before a
    commit or after it."""
    moments = itertools.count(1)

    def die_if_due(*_: object) -> None:
        if threading.current_thread() is threading.main_thread() and next(moments) >= moment:
            os.kill(os.getpid(), signal.SIGKILL)

    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(sa.Engine, event, die_if_due)
    sa.event.listen(sa.Pool, "checkin", die_if_due)
    Monitor(lively(url), timedelta(milliseconds=10), Meters()).run(Stop())


@pytest.fixture
def fork() -> Iterator[Callable[[str, int], multiprocessing.process.BaseProcess]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.monitor.test_leadership"])
    started: list[multiprocessing.process.BaseProcess] = []

    def begin(url: str, moment: int) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=monitor, args=[url, moment])
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


def test_killed_at_any_moment_each_change_is_told_once(
    database_url: str, connection: psycopg.Connection, fork: Callable[[str, int], multiprocessing.process.BaseProcess]
) -> None:
    """Kill monitors at each moment of a pass, in no order, while workers go silent and come back.

    What the killed one left is for the next one, and after every second one for a pass of ours.
    """
    chance = random.Random(20261124)
    administrators = [add_user(connection)[0] for _ in range(2)]
    ids = [add_worker(connection, name=f"w{number}", status="active") for number in range(WORKERS)]
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    context = lively(database_url)
    ours = [whole_pass(context)]
    for number, moment in enumerate(chance.sample(range(1, MOMENTS + 1), MOMENTS)):
        first, second = chance.sample(ids, 2)
        turn(connection, first)
        process = fork(database_url, moment)
        turn(connection, second)
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == -signal.SIGKILL
        if number % 2:
            ours.append(whole_pass(context))
    context.db.close()
    check_chains(connection)
    check_told_once(connection, len(administrators))
    for table in ("worker_events", "worker_alerts"):
        query = f"SELECT count(DISTINCT term) FROM {table} WHERE term <> ALL (%s)"
        killed = connection.execute(query, [ours]).fetchone()
        assert killed
        assert killed[0] > FEWEST_TERMS, f"of {table}"


def whole_pass(context: Context) -> int:
    """Conclude and alert in a term of our own; return its number."""
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    health.check(term, clock.Watch())
    alerts.raise_alerts(term)
    term.release()
    return term.number


def turn(connection: psycopg.Connection, worker_id: object) -> None:
    """Let the worker fall silent if it was heard lately, and else be heard."""
    other = """
        UPDATE container_workers SET last_heartbeat_at =
            CASE WHEN last_heartbeat_at < now() - interval '1 hour' THEN now() ELSE now() - interval '2 hours' END
        WHERE id = %s
    """
    connection.execute(other, [worker_id])
    connection.execute("NOTIFY skyctl_news")


def check_chains(connection: psycopg.Connection) -> None:
    """Of each worker every change begins where the last one ended, and the last one gave the status that it has."""
    query = "SELECT worker_id, from_status, to_status FROM worker_events WHERE kind = 'status_changed' ORDER BY seq"
    statuses: dict[object, str] = {}
    changes = connection.execute(query).fetchall()
    for worker_id, before, after in changes:
        assert statuses.get(worker_id, "active") == before
        statuses[worker_id] = after
    stored: dict[object, str] = dict(connection.execute("SELECT id, status FROM container_workers").fetchall())
    assert {**dict.fromkeys(stored, "active"), **statuses} == stored


def check_told_once(connection: psycopg.Connection, administrators: int) -> None:
    """Each change has one alert, each alert one notification for every administrator and one row in the activity
    log, beside one of theirs for each."""
    changed = connection.execute("SELECT seq FROM worker_events WHERE kind = 'status_changed' ORDER BY seq").fetchall()
    query = "SELECT (metadata ->> 'eventSeq')::bigint FROM worker_alerts ORDER BY 1"
    assert connection.execute(query).fetchall() == changed
    told = connection.execute(
        "SELECT metadata ->> 'eventSeq', user_id, count(*) FROM notifications GROUP BY 1, 2"
    ).fetchall()
    assert len(told) == administrators * len(changed)
    assert {count for _, _, count in told} == {1}
    logged = "SELECT count(*), count(user_id) FROM activity_logs"
    theirs = administrators * len(changed)
    assert connection.execute(logged).fetchone() == (len(changed) + theirs, theirs)
