"""Health in the database: the query picks exactly the workers whom the rule would change."""

import json
from datetime import UTC, datetime, timedelta

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from skyctl.domain.cluster import HealthPolicy
from skyctl.domain.states import WorkerStatus
from skyctl.operations.admin import workers
from skyctl.operations.monitor.sight import Sight
from skyctl.operations.shared.context import Context
from skyctl.rules import health
from skyctl.store import health as store
from skyctl.store import suspects
from tests.support.helpers import add_worker
from tests.support.outages import OUTAGES, outages

POLICY = HealthPolicy()
PERCENTS = st.sampled_from([0.0, 50.5, 90.0, 90.1, 95.0, 95.1, 100.0])
SINCE = st.sampled_from([0, 1, 59, 60, 61, 5000])
SECONDS = st.none() | st.sampled_from([0, 1, 59, 60, 61, 119, 120, 121, 5000])


ODD = st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["", "eu", "no socket"]) | st.just({"a": [1]})


@settings(max_examples=150)
@given(
    status=st.none() | st.sampled_from(list(WorkerStatus)),
    concluded=st.none() | st.sampled_from(list(WorkerStatus)),
    spans=OUTAGES,
    silent=SECONDS,
    stopped=SECONDS,
    changed=SECONDS,
    draining=st.booleans(),
    undrained=st.booleans(),
    loads=st.tuples(PERCENTS, PERCENTS, PERCENTS),
    before=st.none() | st.lists(PERCENTS, max_size=3),
    panel=st.booleans(),
    snake=st.booleans(),
    away=st.none() | st.tuples(SINCE, SECONDS),
    down=st.none() | st.tuples(SINCE, SINCE),
    failed=st.booleans(),
    said=st.dictionaries(st.sampled_from(["engineTrouble", "region"]), ODD),
)
def test_the_query_picks_exactly_whom_the_rule_would_change(
    context: Context,
    connection: psycopg.Connection,
    status: WorkerStatus | None,
    concluded: WorkerStatus | None,
    spans: list[tuple[int, int]],
    silent: float | None,
    stopped: float | None,
    changed: float | None,
    draining: bool,
    undrained: bool,
    loads: tuple[float, float, float],
    before: list[float] | None,
    panel: bool,
    snake: bool,
    away: tuple[float, float | None] | None,
    down: tuple[float, float] | None,
    failed: bool,
    said: dict[str, object],
) -> None:
    keys = (
        ("cpu_percent", "memory_percent", "disk_percent") if snake else ("cpuPercent", "memoryPercent", "diskPercent")
    )
    now = datetime.now(UTC)
    heard = silent if away and away[1] is None else away and away[1]  # most often by the last heartbeat
    connection.execute("DELETE FROM container_workers")
    worker_id = add_worker(
        connection,
        status=status,
        concluded_status=concluded,
        current_load=json.dumps(dict(zip(keys, loads, strict=True))),
        recent_cpu=None if before is None else before if panel else [loads[0], *before],
        last_heartbeat_at=None if silent is None else now - timedelta(seconds=silent),
        stopped_at=None if stopped is None else now - timedelta(seconds=stopped),
        status_changed_at=None if changed is None else now - timedelta(seconds=changed),
        drain_requested_at=now if draining else None,
        undrained_at=now if undrained else None,
        engine_away_since=None if away is None else now - timedelta(seconds=away[0] + (heard or 0)),
        engine_away_seen_at=None if heard is None else now - timedelta(seconds=heard),
        node_down_since=None if down is None else now - timedelta(seconds=sum(down)),
        node_down_seen_at=None if down is None else now - timedelta(seconds=down[0]),
        engine_failed_at=now if failed else None,
        metadata=json.dumps(said),
    )
    found, ours = workers.get(context, worker_id), outages(now, spans)
    silent_since = health.cutoff(now, ours, POLICY.heartbeat_timeout)
    with context.db.transaction() as tx:
        picked = store.survey(tx, POLICY, silent_since).suspects
        [suspect] = suspects.fetch(tx, [worker_id])
    assert suspect.engine_trouble == found.engine_trouble
    assert health.assess(suspect, now, ours, POLICY) == health.assess(found, now, ours, POLICY)
    assert health.is_news_of(suspect, health.assess(suspect, now, ours, POLICY)) == bool(picked)
    changes = health.is_news_of(found, health.assess(found, now, ours, POLICY))
    assert list(picked) == ([worker_id] if changes else [])
    by_pages = Sight(small_blocks=0).look(context.db.transaction, 1, POLICY, now, silent_since, ())
    assert list(by_pages.suspects) == list(picked)
