"""Retention: what is over and old enough goes, step by step; what is still read, or not ours, stays."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest

from skyctl.domain.checks import Check, CheckState
from skyctl.domain.drains import DrainOptions
from skyctl.domain.errors import Forbidden
from skyctl.domain.retention import FOR_EVER, Pruned, RetentionPolicy
from skyctl.operations.admin import diagnosis, doctor_retention, drains, workers
from skyctl.operations.agents import token_refusals
from skyctl.operations.monitor import alerts, retention
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from tests.conftest import Cli
from tests.support.fleet import Fleet
from tests.support.helpers import PATIENCE_SECONDS, TESTS, add_user, add_worker, look

pytestmark = pytest.mark.in_process

LONG = timedelta(days=400)
# As somebody else may have written them: a row of each kind, three years old.
ROWS: dict[str, LiteralString] = {
    "worker_events": "INSERT INTO worker_events (kind, at) SELECT 'stopped', now() - interval '3 years' "
    "FROM generate_series(1, %s)",
    "worker_alerts": "INSERT INTO worker_alerts (kind, title, message, at) "
    "SELECT 'worker_offline', '', '', now() - interval '3 years' FROM generate_series(1, %s)",
    "activity_logs": "INSERT INTO activity_logs (event_type, entity_type, metadata, created_at) SELECT "
    """'worker.invited', 'system', '{"actor": "tests"}', now() - interval '3 years' FROM generate_series(1, %s)""",
}


def prune(context: Context) -> Pruned:
    """All that a monitor removes until nothing is left to look at."""
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    alerts.raise_alerts(term)
    removed: dict[str, int] = {}
    while (pruned := retention.prune(term)).is_more:
        removed |= {name: removed.get(name, 0) + number for name, number in pruned.removed}
    removed |= {name: removed.get(name, 0) + number for name, number in pruned.removed}
    assert not pruned.refused
    term.release()
    return replace(pruned, removed=sorted(removed.items()))


def lead_once(context: Context) -> None:
    """A monitor has led, and so people are alerted of what comes from now on."""
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    term.release()


def count(connection: psycopg.Connection, table: str) -> int:
    [number] = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or ()
    return int(number)


def kinds(connection: psycopg.Connection) -> list[str]:
    return [str(row[0]) for row in connection.execute("SELECT kind FROM worker_events ORDER BY seq")]


def examined(context: Context) -> Check:
    with context.db.transaction() as tx:
        return doctor_retention.examine(tx, context.retention)


def test_events_go_after_their_days_and_what_is_still_read_stays(
    context: Context, connection: psycopg.Connection
) -> None:
    lead_once(context)
    stays, goes = (add_worker(connection, name=name, status="active") for name in ("stays", "goes"))
    for _ in range(2):
        drains.drain(context, [stays], TESTS)
        look(context)
        drains.undrain(context, stays, TESTS)
        look(context)
    workers.remove(context, goes, TESTS)
    assert kinds(connection).count("status_changed") >= 3
    assert prune(context).removed == [], "nothing is old"
    before = diagnosis.diagnose(context, stays).decided_by
    context.db.ahead = LONG
    prune(context)
    assert sorted(kinds(connection)) == ["removed", "status_changed"]
    after = diagnosis.diagnose(context, stays).decided_by
    assert before and after and before.seq == after.seq, "`why` says what it said"
    with context.db.transaction() as tx, pytest.raises(Forbidden, match="removed"):
        token_refusals.refuse_removed(tx, goes)


def test_the_last_flapping_stays_until_the_worker_has_settled(context: Context, connection: psycopg.Connection) -> None:
    lead_once(context)
    worker_id = add_worker(connection, status="active")
    tell = "INSERT INTO worker_events (kind, worker_id, details) VALUES (%s, %s, %s)"
    connection.execute(tell, ("flapping", worker_id, json.dumps({"changes": 3, "seconds": 600})))
    context.db.ahead = LONG
    prune(context)
    assert kinds(connection) == ["flapping"]
    settled = "INSERT INTO worker_events (kind, worker_id, at, details) VALUES ('settled', %s, now() + %s, '{}')"
    connection.execute(settled, (worker_id, LONG))
    context.db.ahead = LONG + timedelta(days=1)
    prune(context)
    assert kinds(connection) == ["settled"]


def test_events_stay_until_people_were_alerted_of_them(context: Context, connection: psycopg.Connection) -> None:
    lead_once(context)
    connection.execute(ROWS["worker_events"], (3,))
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    assert retention.prune(term).removed == []
    alerts.raise_alerts(term)
    connection.execute("UPDATE retention_sweeps SET swept_at = now() - interval '2 hours'")
    assert retention.prune(term).removed == [("events", 3)]


def test_alerts_go_with_what_people_were_told_but_never_an_open_one(
    context: Context, connection: psycopg.Connection
) -> None:
    user_id, _ = add_user(connection)
    lead_once(context)
    open_one, closed = (
        add_worker(connection, name=name, status="active", last_heartbeat_at="2020-01-01") for name in ("lost", "back")
    )
    look(context)
    prune(context)
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() WHERE id = %s", (closed,))
    look(context)
    prune(context)
    panels = "INSERT INTO notifications (user_id, type, message, metadata, created_at) VALUES (%s, %s, '', %s, %s)"
    connection.execute(panels, (user_id, "worker_offline", json.dumps({"workerId": "1"}), "2020-01-01"))
    log = "INSERT INTO activity_logs (event_type, entity_type, metadata, created_at) VALUES (%s, 'system', %s, %s)"
    for kind, metadata in (("worker.invited", {}), ("login", {"actor": "panel"}), ("alert.x", {"alertId": 1})):
        connection.execute(log, (kind, json.dumps(metadata), "2020-01-01"))
    assert count(connection, "worker_alerts") == 3
    assert count(connection, "notifications") == 4
    context.db.ahead = LONG
    removed = dict(prune(context).removed)
    assert (removed["alerts"], removed["notifications"], removed["activity log"]) == (2, 3, 6)
    left = connection.execute("SELECT worker_id FROM worker_alerts").fetchall()
    assert left == [(open_one,)], "the incident is open"
    assert connection.execute("SELECT worker_id FROM worker_incidents").fetchall() == [(open_one,)]
    assert count(connection, "notifications") == 1, "the panel's own stay"
    assert count(connection, "activity_logs") == 3


def test_an_alert_of_a_mass_failure_stays_until_that_is_lifted(
    context: Context, connection: psycopg.Connection
) -> None:
    lead_once(context)
    connection.execute("INSERT INTO mass_failures (silent, schedulable) VALUES (3, 4)")
    connection.execute(
        "INSERT INTO worker_alerts (kind, title, message, metadata, at) SELECT 'mass_failure', '', '', "
        "jsonb_build_object('massFailureId', id), now() - interval '3 years' FROM mass_failures"
    )
    assert prune(context).removed == []
    connection.execute("UPDATE mass_failures SET lifted_at = now()")
    connection.execute("DELETE FROM retention_sweeps")
    assert prune(context).removed == [("alerts", 1)]


def moved(trio: Fleet, times: int) -> None:
    """A service that was moved so often, between w1 and w2."""
    trio.deploy("web", to="w1")
    for number in range(times):
        source = ("w1", "w2")[number % 2]
        drains.drain(trio.context, [trio.ids["w3"], trio.ids[source]], TESTS, DrainOptions())
        trio.settle()
        assert trio.where()["web"] not in (source, "w3")
        for name in (source, "w3"):
            drains.undrain(trio.context, trio.ids[name], TESTS)
        trio.settle()


def test_of_deployments_the_current_one_and_the_newest_stay(trio: Fleet) -> None:
    moved(trio, 5)
    [panel] = trio.connection.execute("SELECT id FROM container_services").fetchone() or ()
    trio.connection.execute(
        "INSERT INTO container_deployments (service_id, image_tag, status, created_at, updated_at) "
        "VALUES (%s, 'panel:1', 'stopped', '2020-01-01', '2020-01-01')",
        (panel,),
    )
    assert count(trio.connection, "container_deployments") == 7
    context = replace(trio.context, retention=RetentionPolicy(deployments=3))
    context.db.ahead = LONG
    assert dict(prune(context).removed)["migrations"] == 5
    left = trio.connection.execute(
        "SELECT image_tag, d.status, s.current_deployment_id = d.id FROM container_deployments d "
        "JOIN container_services s ON s.id = d.service_id ORDER BY d.created_at"
    ).fetchall()
    assert left == [
        ("panel:1", "stopped", False),  # never one of the panel's
        ("app:1", "stopped", False),
        ("app:1", "stopped", False),
        ("app:1", "running", True),
    ]
    assert trio.where()["web"] == "w2"


def test_a_deployment_that_a_migration_tells_of_stays(trio: Fleet) -> None:
    moved(trio, 1)
    context = replace(trio.context, retention=RetentionPolicy(deployments=1))
    trio.connection.execute("UPDATE container_deployments SET updated_at = now() - interval '3 years'")
    assert prune(context).removed == []
    assert count(trio.connection, "container_deployments") == 2


def test_a_migration_stays_while_its_old_container_may_run(trio: Fleet) -> None:
    trio.deploy("web", to="w1")
    trio.fail("w1")
    trio.settle()
    assert trio.where()["web"] != "w1"
    trio.context.db.ahead = LONG
    assert "migrations" not in dict(prune(trio.context).removed), "the old one is not known to have stopped"
    trio.context.db.ahead = timedelta()
    trio.heal("w1")
    trio.settle()
    trio.connection.execute("DELETE FROM retention_sweeps")
    trio.context.db.ahead = LONG
    assert dict(prune(trio.context).removed)["migrations"] == 1


def test_a_failed_migration_stays_while_it_keeps_a_service_from_moving_again(trio: Fleet) -> None:
    trio.deploy("web", to="w1")
    drains.drain(trio.context, [trio.ids["w1"]], TESTS, DrainOptions())
    trio.step()
    trio.connection.execute(
        "UPDATE container_migrations SET state = 'failed', finished_at = now(), summed_up_at = now(), "
        "source_stopped_at = NULL"
    )
    trio.context.db.ahead = LONG
    prune(trio.context)
    assert count(trio.connection, "container_migrations") == 1


def test_used_and_expired_links_go(cli: Cli, context: Context, connection: psycopg.Connection) -> None:
    lead_once(context)
    assert cli("workers", "install-script", "--name", "new", "--link").returncode == 0
    assert count(connection, "install_links") == 1
    assert prune(context).removed == []
    context.db.ahead = LONG
    assert dict(prune(context).removed)["install links"] == 1


@pytest.mark.parametrize("table", list(ROWS))
def test_a_pass_removes_no_more_than_some_and_waits_for_nobody(
    context: Context, connection: psycopg.Connection, database_url: str, table: str
) -> None:
    lead_once(context)
    most = retention.MOST_ROWS * retention.MOST_STEPS
    connection.execute(ROWS[table], (most + 10,))
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    alerts.raise_alerts(term)
    key = "seq" if table == "worker_events" else "id"
    with psycopg.connect(database_url) as other:
        other.execute("SELECT skyctl_lock_events()")
        held = f"SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 FOR UPDATE"
        other.execute(held)
        pruned = retention.prune(term)
        assert [number for _, number in pruned.removed] in ([most - 1], [most])
        assert pruned.is_more
        assert not retention.prune(term).is_more
        assert count(connection, table) == 1, "what somebody else holds"
    connection.execute("UPDATE retention_sweeps SET swept_at = now() - interval '2 hours'")
    retention.prune(term)
    assert count(connection, table) == 0


def test_zero_days_keep_for_ever(context: Context, connection: psycopg.Connection) -> None:
    kept = replace(context, retention=RetentionPolicy(FOR_EVER, FOR_EVER, FOR_EVER))
    for rows in ROWS.values():
        connection.execute(rows, (2,))
    assert prune(kept).removed == []
    assert examined(kept).state is CheckState.OK
    assert "events 2 since" in examined(kept).found
    assert "(for ever)" in examined(kept).found


def test_what_the_database_refuses_to_remove_keeps_nothing_else(
    context: Context, connection: psycopg.Connection
) -> None:
    lead_once(context)
    for rows in ROWS.values():
        connection.execute(rows, (2,))
    connection.execute("CREATE TABLE panels (alert bigint REFERENCES worker_alerts (id))")
    connection.execute("INSERT INTO panels SELECT id FROM worker_alerts")
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    alerts.raise_alerts(term)
    pruned = retention.prune(term)
    assert [name for name, _ in pruned.refused] == ["alerts"]
    assert dict(pruned.removed) == {"events": 2, "activity log": 2}


def test_the_doctor_says_what_is_kept_and_whether_it_is_removed_in_time(
    cli: Cli, context: Context, connection: psycopg.Connection
) -> None:
    lead_once(context)
    connection.execute(ROWS["worker_events"], (2,))
    late = examined(context)
    assert late.state is CheckState.WARNING
    assert late.found.startswith("events: older rows")
    assert "events 2 since" in late.found
    assert "skyctl monitor" in late.remedy
    assert cli("monitor", "--once").returncode == 0
    assert count(connection, "worker_events") == 0
    checks = json.loads(cli("doctor", "-o", "json").stdout)["checks"]
    [said] = [check for check in checks if check["name"] == "retention"]
    assert said["state"] == "ok"
    assert said["found"].startswith("events 0 (90 d); alerts 0 (180 d)")


Follow = Callable[..., "subprocess.Popen[str]"]


def test_who_reads_on_from_a_number_that_is_gone_is_told(
    cli: Cli, follow: Follow, context: Context, connection: psycopg.Connection
) -> None:
    lead_once(context)
    connection.execute(ROWS["worker_events"], (5,))
    whole = cli("events", "--since", "0", "-o", "json")
    assert (whole.stderr, list(json.loads(whole.stdout))) == ("", ["events"])
    prune(context)
    worker_id = add_worker(connection, status="active")
    drains.drain(context, [worker_id], TESTS)
    read = cli("-q", "events", "--since", "2", "-o", "json")
    document = json.loads(read.stdout)
    assert (document["beginsAfter"], [event["seq"] for event in document["events"]]) == (5, [6])
    assert "the log begins after number 5" in read.stderr
    follower = follow("events", "--follow", "--since", "2", "-o", "json")
    assert follower.stdout
    first = json.loads(follower.stdout.readline())
    drains.undrain(context, worker_id, TESTS)
    second = json.loads(follower.stdout.readline())
    follower.terminate()
    follower.wait(PATIENCE_SECONDS)
    assert (first["seq"], first["beginsAfter"]) == (6, 5)
    assert second["seq"] == 7
    assert "beginsAfter" not in second
    assert "beginsAfter" not in json.loads(cli("events", "--since", "5", "-o", "json").stdout), "no gap"
    assert UUID(first["workerId"]) == worker_id


def test_one_row_that_is_referred_to_keeps_no_other_of_its_kind(
    context: Context, connection: psycopg.Connection
) -> None:
    lead_once(context)
    connection.execute(ROWS["worker_events"], (40,))
    connection.execute("CREATE TABLE of_the_panel (event_id bigint REFERENCES worker_events)")
    connection.execute("INSERT INTO of_the_panel SELECT seq FROM worker_events ORDER BY seq OFFSET 20 LIMIT 1")
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    alerts.raise_alerts(term)
    removed = [dict(retention.prune(term).removed).get("events", 0) for _ in range(8)]
    assert sum(removed) == 39
    assert (
        connection.execute("SELECT seq FROM worker_events").fetchall()
        == connection.execute("SELECT event_id FROM of_the_panel").fetchall()
    )


def test_an_event_of_the_future_ends_no_sweep(context: Context, connection: psycopg.Connection) -> None:
    lead_once(context)
    connection.execute("INSERT INTO worker_events (kind, at) VALUES ('stopped', now() + interval '3 years')")
    connection.execute(ROWS["worker_events"], (retention.MOST_ROWS + 10,))
    assert dict(prune(context).removed)["events"] == retention.MOST_ROWS + 10
