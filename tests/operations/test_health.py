"""Passes of the monitor over the workers: each status changes once, with its event, whatever else goes wrong."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from skyctl.domain.cluster import HealthPolicy
from skyctl.domain.states import WorkerStatus
from skyctl.operations.admin import workers
from skyctl.operations.monitor.health import check
from skyctl.operations.shared import clock, leadership
from skyctl.operations.shared.context import Context
from skyctl.store import health as store
from tests.support.helpers import add_worker, look

POLICY = HealthPolicy()


def statuses(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, status FROM container_workers").fetchall())


def test_a_pass_changes_each_status_once_with_its_event(context: Context, connection: psycopg.Connection) -> None:
    now = datetime.now(UTC)
    add_worker(connection, name="new")
    add_worker(connection, name="fresh", last_heartbeat_at=now)
    add_worker(connection, name="dead", status="active", last_heartbeat_at=now - timedelta(seconds=121))
    add_worker(connection, name="full", status="active", last_heartbeat_at=now, current_load='{"diskPercent": 91}')
    add_worker(connection, name="odd", status="active", last_heartbeat_at=now, current_load='{"diskPercent": "many"}')
    done = look(context)
    assert {(c.worker_name, c.from_status, c.to_status) for c in done.events} == {
        ("fresh", "pending", "active"),
        ("dead", "active", "offline"),
        ("full", "active", "unhealthy"),
    }
    assert statuses(connection) == {
        "new": "pending",
        "fresh": "active",
        "dead": "offline",
        "full": "unhealthy",
        "odd": "active",
    }
    assert look(context).events == []
    events = connection.execute(
        "SELECT worker_name, from_status, to_status, reason FROM worker_events ORDER BY 1"
    ).fetchall()
    assert [event[:3] for event in events] == [
        ("dead", "active", "offline"),
        ("fresh", "pending", "active"),
        ("full", "active", "unhealthy"),
    ]
    assert events[2][3] == "disk 91 % > 90 %"


def test_figures_beyond_reason_stop_nobody(context: Context, connection: psycopg.Connection) -> None:
    now = datetime.now(UTC)
    odd = '{"cpu_percent": 1e400, "containerCount": -1e300}'
    add_worker(connection, name="odd", last_heartbeat_at=now, current_load=odd)
    add_worker(connection, name="good", last_heartbeat_at=now)
    look(context)
    assert statuses(connection) == {"odd": "active", "good": "active"}
    assert {worker.load.cpu_percent for worker in workers.list_workers(context).workers} == {0}
    assert workers.stats(context).load.container_count == 0


def test_a_drain_that_the_panel_wrote_outlives_offline(context: Context, connection: psycopg.Connection) -> None:
    long_ago = datetime.now(UTC) - timedelta(seconds=600)
    add_worker(connection, name="w", status="draining", last_heartbeat_at=long_ago)
    look(context)
    assert statuses(connection) == {"w": "offline"}
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    look(context)
    assert statuses(connection) == {"w": "draining"}


def test_somebody_who_was_first_wins(context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, status="active")
    with context.db.transaction() as tx:
        assert not store.change(
            tx, [store.Change(worker_id, WorkerStatus.OFFLINE, None, WorkerStatus.ACTIVE, None)], POLICY
        )
        offline = [store.Change(worker_id, WorkerStatus.ACTIVE, None, WorkerStatus.OFFLINE, None)]
        assert store.change(tx, offline, POLICY) == {worker_id}


def test_who_has_beaten_since_it_was_seen_does_not_go_offline(context: Context, connection: psycopg.Connection) -> None:
    seen_at = datetime.now(UTC) - timedelta(seconds=600)
    worker_id = add_worker(connection, status="active", last_heartbeat_at=seen_at)
    offline = [store.Change(worker_id, WorkerStatus.ACTIVE, seen_at, WorkerStatus.OFFLINE, None)]
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    with context.db.transaction() as tx:
        assert not store.change(tx, offline, POLICY)
        connection.execute("UPDATE container_workers SET last_heartbeat_at = %s", (seen_at,))
        assert store.change(tx, offline, POLICY) == {worker_id}


def test_the_next_deadline_is_the_oldest_heartbeats(context: Context, connection: psycopg.Connection) -> None:
    now = datetime.now(UTC)
    assert look(context).next_deadline_seconds is None
    add_worker(connection, status="active", last_heartbeat_at=now - timedelta(seconds=60))
    add_worker(connection, status="active", last_heartbeat_at=now)
    deadline = look(context).next_deadline_seconds
    assert deadline is not None
    assert 0 < deadline <= 60


def silent_region(connection: psycopg.Connection, region: str) -> list[UUID]:
    """Four workers of a region that have been silent for too long."""
    long_ago = datetime.now(UTC) - timedelta(seconds=150)
    metadata = f'{{"region": {region}}}'
    return [add_worker(connection, status="active", last_heartbeat_at=long_ago, metadata=metadata) for _ in range(4)]


@pytest.mark.parametrize("region", ['"eu"', "5", "true", '{"a": 1}', "null"])
def test_a_mass_failure_holds_whatever_the_region_is(
    context: Context, connection: psycopg.Connection, region: str
) -> None:
    silent_region(connection, region)
    done = look(context)
    assert [event.kind for event in done.events] == ["mass_failure"] + 4 * ["status_changed"]
    assert all("massFailureId" in event.details for event in done.events)
    assert look(context).events == [], "it holds"


def test_a_hold_is_lifted_too_where_the_panel_writes_the_status(
    context: Context, connection: psycopg.Connection
) -> None:
    silent_region(connection, '"eu"')
    look(context)
    connection.execute("UPDATE container_workers SET status = 'active', last_heartbeat_at = now()")
    assert [event.kind for event in look(context).events] == 4 * ["status_changed"] + ["mass_recovery"]


def test_an_engine_that_is_back_meanwhile_has_not_failed(context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, status="active")
    change = store.Change(worker_id, WorkerStatus.ACTIVE, None, WorkerStatus.UNHEALTHY, None, engine_failed=True)
    with context.db.transaction() as tx:
        assert not store.change(tx, [change], POLICY)
    connection.execute(
        "UPDATE container_workers SET engine_away_since = now() - interval '61 s', engine_away_seen_at = now()"
    )
    with context.db.transaction() as tx:
        assert store.change(tx, [change], POLICY) == {worker_id}


def refuse_updates(connection: psycopg.Connection, name: str) -> None:
    connection.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.name = '{name}' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON container_workers FOR EACH ROW EXECUTE FUNCTION refuse();
    """)


def test_a_flapping_worker_that_cannot_settle_stops_no_other(context: Context, connection: psycopg.Connection) -> None:
    now, long_ago = datetime.now(UTC), datetime.now(UTC) - timedelta(hours=1)
    for name in ("poison", "well"):
        add_worker(
            connection,
            name=name,
            status="active",
            concluded_status="active",
            last_heartbeat_at=now,
            flapping_since=long_ago,
            status_changed_at=long_ago,
        )
    refuse_updates(connection, "poison")
    done = look(context)
    assert [(event.worker_name, event.kind) for event in done.events] == [("well", "settled")]
    assert [poison.worker.name for poison in done.poison] == ["poison"]


def test_who_is_passed_over_calls_for_no_look(context: Context, connection: psycopg.Connection) -> None:
    """A silent worker that cannot be changed would else call for the next look at once, for ever."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    poison = add_worker(connection, name="poison", status="active", last_heartbeat_at=long_ago)
    add_worker(connection, status="active", last_heartbeat_at=datetime.now(UTC))
    refuse_updates(connection, "poison")
    lease = leadership.lead(context, "tests", lambda _: True)
    assert lease
    assert [one.worker.id for one in check(lease, clock.Watch()).poison] == [poison]
    again = check(lease, clock.Watch(), {poison})
    assert (again.poison, again.events) == ([], [])
    assert again.next_deadline_seconds is not None
    assert again.next_deadline_seconds > 0


def test_a_hold_stands_while_others_are_on_their_way_offline(context: Context, connection: psycopg.Connection) -> None:
    """The two that timed out first come back; two that failed with them have not timed out yet."""
    now = datetime.now(UTC)
    first = [add_worker(connection, status="active", last_heartbeat_at=now - timedelta(seconds=121)) for _ in range(2)]
    for _ in range(2):
        add_worker(connection, status="active", last_heartbeat_at=now - timedelta(seconds=80))
    assert look(context).events[0].kind == "mass_failure"
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() WHERE id = ANY (%s)", (first,))
    assert {event.kind for event in look(context).events} == {"status_changed"}
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    assert [event.kind for event in look(context).events] == ["mass_recovery"]
