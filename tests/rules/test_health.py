"""Health: the table of the rule, row by row; and that the query which picks candidates misses nobody."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity, HealthPolicy, Load, Outage, Worker, WorkerStatus
from skyctl.operations.admin import workers
from skyctl.operations.monitor.health import check
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from skyctl.rules import health
from skyctl.store import health as store
from tests.support.helpers import add_worker, look

NOW = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = HealthPolicy()


def worker(status: str = "active", silent: float | None = 1, load: Load | None = None, **facts: Any) -> Worker:
    heard = None if silent is None else NOW - timedelta(seconds=silent)
    return Worker(
        id=UUID(int=1),
        name="w",
        hostname="h",
        ip_address="10.0.0.1",
        status=WorkerStatus(status),
        capacity=Capacity(),
        load=load or Load(),
        created_at=NOW,
        updated_at=NOW,
        last_heartbeat_at=heard,
        **facts,
    )


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        ({"silent": None, "status": "pending"}, "pending", "never heard"),
        ({"silent": 1, "status": "pending"}, "active", "within its limits"),
        ({"silent": 120}, "active", "within its limits"),
        ({"silent": 120.1}, "offline", "silent for 120.1 s > 120 s"),
        ({"silent": 1, "status": "offline"}, "active", ""),
        ({"load": Load(90, 95, 90)}, "active", ""),
        ({"load": Load(90.1, 0, 0)}, "unhealthy", "CPU 90.1 % > 90 %"),
        ({"load": Load(0, 95.1, 0)}, "unhealthy", "memory 95.1 % > 95 %"),
        ({"load": Load(0, 0, 100)}, "unhealthy", "disk 100 % > 90 %"),
        ({"load": Load(99, 99, 99)}, "unhealthy", "CPU 99 % > 90 %, memory 99 % > 95 %, disk 99 % > 90 %"),
        ({"load": Load(99, 0, 0), "status": "offline"}, "unhealthy", ""),
        ({"status": "unhealthy"}, "active", ""),
        ({"status": "draining"}, "draining", ""),
        ({"status": "draining", "load": Load(99, 99, 99)}, "draining", ""),
        ({"status": "draining", "silent": 121}, "offline", ""),
        ({"status": "offline", "drain_requested_at": NOW}, "draining", ""),
        ({"status": "active", "drain_requested_at": NOW}, "draining", ""),
        ({"status": "pending", "silent": None, "drain_requested_at": NOW}, "draining", ""),
        ({"stopped_at": NOW}, "offline", "on purpose"),
        ({"stopped_at": NOW - timedelta(seconds=5)}, "active", ""),
        ({"stopped_at": NOW, "silent": None}, "offline", "on purpose"),
    ],
)
def test_each_row_of_the_table(facts: dict[str, Any], status: str, reason: str) -> None:
    verdict = health.assess(worker(**facts), NOW, [], POLICY)
    assert verdict.status == status
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("facts", "changes"),
    [
        ({"silent": 121}, ["a heartbeat brings it back"]),
        ({"stopped_at": NOW, "silent": None}, ["a heartbeat brings it back"]),
        ({"silent": None, "status": "pending"}, ["active, by its first heartbeat"]),
        (
            {"silent": 20, "drain_requested_at": NOW},
            ["offline, if it stays silent for 100 s more", "back in service, by `skyctl workers undrain`"],
        ),
        ({"silent": None, "drain_requested_at": NOW}, ["back in service, by `skyctl workers undrain`"]),
        (
            {"silent": 120, "load": Load(91, 10, 99)},
            ["offline, if it stays silent for 0 s more", "active, by a heartbeat with CPU ≤ 90 % and disk ≤ 90 %"],
        ),
        (
            {"silent": 20},
            [
                "offline, if it stays silent for 100 s more",
                "unhealthy, by a heartbeat with CPU > 90 %, memory > 95 % or disk > 90 %",
            ],
        ),
    ],
)
def test_what_would_change_a_status(facts: dict[str, Any], changes: list[str]) -> None:
    assert health.outlook(worker(**facts), NOW, [], POLICY) == changes


def test_our_outages_put_off_what_would_change() -> None:
    [silent, _] = health.outlook(worker(silent=620), NOW, outages(NOW, [(10, 600)]), POLICY)
    assert silent == "offline, if it stays silent for 100 s more"


PERCENTS = st.sampled_from([0, 50.5, 90, 90.1, 95, 95.1, 100])
SECONDS = st.none() | st.sampled_from([0, 1, 119, 120, 121, 5000])


OUTAGES = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 300)), max_size=4)


def outages(now: datetime, spans: list[tuple[int, int]]) -> list[Outage]:
    """Outages that ended so many seconds ago and lasted so long."""
    ends = [(now - timedelta(seconds=ago), timedelta(seconds=lasted)) for ago, lasted in spans]
    return health.merged(Outage(end - lasted, end) for end, lasted in ends)


@given(silent=st.integers(0, 2000), timeout=st.integers(1, 300), spans=OUTAGES)
def test_the_cutoff_is_where_heard_silence_is_the_timeout(
    silent: int, timeout: int, spans: list[tuple[int, int]]
) -> None:
    ours, since, limit = outages(NOW, spans), NOW - timedelta(seconds=silent), timedelta(seconds=timeout)
    assert (since < health.cutoff(NOW, ours, limit)) == (health.heard_silence(since, NOW, ours) > limit)


def test_silence_counts_only_while_somebody_could_have_heard() -> None:
    ten_minutes = outages(NOW, [(10, 600), (300, 100)])
    for silent, status in ((620, "active"), (720, "active"), (721, "offline")):
        assert health.assess(worker(silent=silent), NOW, ten_minutes, POLICY).status == status
    reason = health.assess(worker(silent=721), NOW, ten_minutes, POLICY).reason
    assert reason == "silent for 121 s > 120 s"


@settings(max_examples=150)
@given(
    status=st.none() | st.sampled_from(list(WorkerStatus)),
    spans=OUTAGES,
    silent=SECONDS,
    stopped=SECONDS,
    draining=st.booleans(),
    undrained=st.booleans(),
    loads=st.tuples(PERCENTS, PERCENTS, PERCENTS),
    snake=st.booleans(),
)
def test_the_query_picks_exactly_whom_the_rule_would_change(
    context: Context,
    connection: psycopg.Connection,
    status: WorkerStatus | None,
    spans: list[tuple[int, int]],
    silent: float | None,
    stopped: float | None,
    draining: bool,
    undrained: bool,
    loads: tuple[float, float, float],
    snake: bool,
) -> None:
    keys = (
        ("cpu_percent", "memory_percent", "disk_percent") if snake else ("cpuPercent", "memoryPercent", "diskPercent")
    )
    now = datetime.now(UTC)
    connection.execute("DELETE FROM container_workers")
    worker_id = add_worker(
        connection,
        status=status,
        current_load=json.dumps(dict(zip(keys, loads, strict=True))),
        last_heartbeat_at=None if silent is None else now - timedelta(seconds=silent),
        stopped_at=None if stopped is None else now - timedelta(seconds=stopped),
        drain_requested_at=now if draining else None,
        undrained_at=now if undrained else None,
    )
    found, ours = workers.get(context, worker_id), outages(now, spans)
    with context.db.transaction() as tx:
        picked = store.survey(tx, POLICY, health.cutoff(now, ours, POLICY.heartbeat_timeout)).suspects
    changes = health.assess(found, now, ours, POLICY).status is not found.status
    assert list(picked) == ([worker_id] if changes else [])


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
        assert not store.change(tx, [store.Change(worker_id, WorkerStatus.OFFLINE, WorkerStatus.ACTIVE, None)])
        assert store.change(tx, [store.Change(worker_id, WorkerStatus.ACTIVE, WorkerStatus.OFFLINE, None)]) == {
            worker_id
        }


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
    assert [event.kind for event in look(context).events] == ["mass_recovery"]


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
    assert [one.worker.id for one in check(lease).poison] == [poison]
    again = check(lease, {poison})
    assert (again.poison, again.events) == ([], [])
    assert again.next_deadline_seconds is not None
    assert again.next_deadline_seconds > 0


def test_a_hold_stands_while_others_are_on_their_way_offline(context: Context, connection: psycopg.Connection) -> None:
    """The two that timed out first come back; two that fell silent with them have not timed out yet."""
    now = datetime.now(UTC)
    first = [add_worker(connection, status="active", last_heartbeat_at=now - timedelta(seconds=121)) for _ in range(2)]
    for _ in range(2):
        add_worker(connection, status="active", last_heartbeat_at=now - timedelta(seconds=80))
    assert look(context).events[0].kind == "mass_failure"
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() WHERE id = ANY (%s)", (first,))
    assert {event.kind for event in look(context).events} == {"status_changed"}
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    assert [event.kind for event in look(context).events] == ["mass_recovery"]
