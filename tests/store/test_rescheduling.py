"""Failed workers whose nodes are looked at: the query finds those whose containers the rule of evictions evicts."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from skyctl.domain.cluster import Worker
from skyctl.domain.evictions import PlacedContainer
from skyctl.domain.states import DeploymentStatus, MigrationCause, MigrationPolicy, MigrationState
from skyctl.operations.shared.context import Context
from skyctl.rules import eviction
from skyctl.store import db, node_states
from skyctl.store import rescheduling as store
from skyctl.store.rescheduling import Moved
from tests.store.test_evictions import NOW, insert, moments, mostly, workers
from tests.support.helpers import add_worker

FIELDS = (
    "id name hostname ip_address created_at last_heartbeat_at stopped_at status_changed_at drain_requested_at "
    "drain_finished_at drain_deadline_at mass_failure_id engine_failed_at status"
)


def container(worker: Worker, seen_at: datetime | None = None) -> PlacedContainer:
    placed = (uuid4(), uuid4(), DeploymentStatus.RUNNING, worker, MigrationPolicy.AUTOMATIC, None, seen_at)
    return PlacedContainer(*placed)


def write(tx: sa.Connection, worker: Worker, **more: Any) -> None:
    values = {"auth_token_hash": ""} | {name: getattr(worker, name) for name in FIELDS.split()} | more
    insert(tx, db.now(tx) - NOW, "container_workers", values)


@settings(max_examples=300)
@given(
    drawn=st.lists(
        st.tuples(workers, st.none() | moments(), mostly("node", None), mostly(None, NOW)), min_size=1, max_size=12
    )
)
def test_the_query_finds_the_workers_whose_containers_the_rule_evicts(
    context: Context, drawn: list[tuple[Worker, datetime | None, str | None, datetime | None]]
) -> None:
    with context.db.transaction() as tx:
        tx.execute(sa.text("DELETE FROM container_workers"))
        for worker, seen_at, node_id, lost_at in drawn:
            write(tx, worker, failure_seen_at=seen_at, swarm_node_confirmed=node_id, node_lost_at=lost_at)
        found = {each.worker_id: each for each in store.failed_nodes(tx)}
    for worker, seen_at, node_id, lost_at in drawn:
        each, verdict = found.get(worker.id), eviction.evict(container(worker), NOW)
        if node_id is None:
            assert each is None
            continue
        has_failed = verdict is not None and verdict.cause is MigrationCause.WORKER_FAILED
        if lost_at is not None and (each is None or each.is_seen):
            assert each is None
            assert not has_failed or eviction.evict(container(worker, seen_at), NOW) is None
            continue
        assert has_failed == (each is not None and not each.is_drained)
        if each and each.is_drained:
            assert verdict is not None
            assert verdict.cause is MigrationCause.DRAIN
        elif each:
            assert each.is_seen == (eviction.evict(container(worker, seen_at), NOW) is None)
            assert each.mass_failure_id == worker.mass_failure_id


def moved(name: str, worker_id: UUID, state: MigrationState = MigrationState.VERIFYING) -> Moved:
    return Moved(name, name, worker_id, state, "why")


def test_a_service_is_in_one_migration_off_a_worker_and_nothing_is_kept_back_of_others(context: Context) -> None:
    first, second, timeout = uuid4(), uuid4(), timedelta(minutes=5)
    with context.db.transaction() as tx:
        assert store.insert(tx, [], timeout) == []
        queued = moved("api", first, MigrationState.QUEUED)
        made = store.insert(tx, [moved("web", first), moved("web", first), moved("web", second), queued], timeout)
        assert sorted((each.service_name, each.source_worker_id == first) for each in made) == [
            ("api", True),
            ("web", False),
            ("web", True),
        ]
        by_name = {each.service_name: each for each in made}
        assert (by_name["web"].is_left_to_swarm, by_name["api"].is_left_to_swarm) == (True, False)
        assert by_name["web"].deadline_at == db.now(tx) + timeout
        assert (by_name["api"].deadline_at, by_name["api"].started_at) == (None, None)
        assert store.insert(tx, [moved("web", first), queued], timeout) == []
        [left] = store.leave_off(tx, [first], "its node is down", timeout)
        assert (left.service_name, left.is_left_to_swarm, left.reason) == ("api", True, "its node is down")
        assert store.leave_off(tx, [first], "its node is down", timeout) == [], "once"


def test_a_lost_node_is_lost_until_the_swarm_shows_it_up(context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, name="w", swarm_node_id="n", swarm_node_confirmed="n", status="offline")
    with context.db.transaction() as tx:
        assert [each.is_seen for each in store.failed_nodes(tx)] == [False]
        store.note_seen(tx, [worker_id], [])
        assert [each.is_seen for each in store.failed_nodes(tx)] == [True]
        store.note_seen(tx, [worker_id], [worker_id])
        assert store.failed_nodes(tx) == []
        assert not node_states.has_news(tx, [])
        assert node_states.has_news(tx, ["n"])
        node_states.note(tx, ["n"], timedelta(minutes=1))
        assert [each.is_seen for each in store.failed_nodes(tx)] == [True]
        assert not node_states.has_news(tx, ["n"])
