"""Evictions: the queries pick exactly the containers that the rule evicts, and the migrations that it calls off.

Each example writes random rows and lets the monitor's step run in the same transaction, whose `now` stands still. What
the rule alone says is asked of the values that were written, not of what the queries found.
"""

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity, Load, MassFailure, Worker
from skyctl.domain.evictions import PlacedContainer, UnstartedMigration
from skyctl.domain.states import (
    DeploymentStatus,
    MigrationCause,
    MigrationPolicy,
    MigrationState,
    ServiceStatus,
    WorkerStatus,
)
from skyctl.operations.monitor import evictions as monitor
from skyctl.operations.shared.context import Context
from skyctl.rules import eviction
from skyctl.store import db
from skyctl.store import evictions as store

NOW = datetime(2026, 11, 1, tzinfo=UTC)
A_MINUTE_AGO, AN_HOUR_AGO = NOW - timedelta(minutes=1), NOW - timedelta(hours=1)
FAILURES = {
    1: MassFailure(1, None, 4, 6, NOW, None),
    2: MassFailure(2, "eu", 3, 5, NOW, NOW),  # lifted
}
STARTED = (MigrationState.STARTING, MigrationState.VERIFYING)
TABLES = ("organizations", "container_workers", "mass_failures")  # what belongs to organizations goes with them


def mostly(*values: Any) -> st.SearchStrategy[Any]:
    """Draw the first value seven times of eight, where any other one would hide what the other columns do."""
    return st.sampled_from([values[0]] * 7 * (len(values) - 1) + list(values[1:]))


def moments(*, at_least: int = 1) -> st.SearchStrategy[datetime]:
    """Draw one of few moments, so that equal ones are frequent."""
    return st.integers(at_least, 4).map(lambda minutes: NOW - timedelta(minutes=minutes))


@dataclass(frozen=True, repr=False)
class Case:
    """A service with one container; `migration` is the one that there is already, of it or of another deployment."""

    container: PlacedContainer
    service_status: ServiceStatus
    organization_settings: str | None
    swarm_service_id: str | None
    untold_since: datetime | None
    worker_is_removed: bool
    migration: "Past | None"

    def __repr__(self) -> str:
        return told(self)


def told(value: Any) -> str:
    """Tell of a case what is not as ever: a dozen of them as they are would be more than an example may say."""
    if not is_dataclass(value):
        return repr(value)
    facts = {field.name: getattr(value, field.name) for field in fields(value)}
    return f"{type(value).__name__}({', '.join(f'{name}={told(fact)}' for name, fact in facts.items() if fact)})"


@dataclass(frozen=True)
class Past:
    """A migration that there is already; `of_current`: its source is this deployment, not one before it."""

    id: UUID
    cause: MigrationCause
    state: MigrationState
    created_at: datetime
    is_finished: bool
    of_current: bool
    keeps_source: bool


workers = st.builds(
    Worker,
    id=st.builds(uuid4),
    name=st.just("w"),
    hostname=st.just("h"),
    ip_address=st.just("10.0.0.1"),
    status=st.sampled_from([*2 * [WorkerStatus.OFFLINE], WorkerStatus.ACTIVE, WorkerStatus.DRAINING]),
    capacity=st.just(Capacity()),
    load=st.just(Load()),
    created_at=moments(),
    updated_at=st.just(NOW),
    last_heartbeat_at=st.none() | moments(),
    stopped_at=st.sampled_from([None, None, NOW - timedelta(minutes=2)]),
    status_changed_at=moments() | moments() | st.none(),
    drain_requested_at=st.none() | moments(),
    drain_finished_at=st.sampled_from([None, None, None, NOW]),
    drain_deadline_at=st.sampled_from([None, None, NOW, NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)]),
    mass_failure_id=st.sampled_from([None, 1, 2, 3]),
    engine_failed_at=mostly(None, NOW - timedelta(minutes=2)),
)
pasts = st.builds(
    Past,
    id=st.builds(uuid4),
    cause=st.sampled_from(MigrationCause),
    state=st.sampled_from([state for state in MigrationState if state is not MigrationState.COMPLETED]),
    created_at=moments(),
    is_finished=st.booleans(),
    of_current=mostly(True, False),
    keeps_source=mostly(True, False),
)
unstarted_pasts = pasts.map(lambda past: replace(past, is_finished=False, state=MigrationState.QUEUED))


@st.composite
def cases(draw: st.DrawFn, past: st.SearchStrategy[Past | None]) -> Case:
    """Draw a service, its container and its worker, with this past."""
    worker, migration = draw(workers), draw(past)
    policy = draw(st.sampled_from(MigrationPolicy))
    unsaid = draw(st.sampled_from([None, "{}", '{"containerMigrationPolicy": "sometimes"}']))
    is_unsaid = policy is MigrationPolicy.AUTOMATIC and draw(st.booleans())
    swarm_service_id, untold_since = draw(mostly("engine", None)), draw(mostly(None, NOW))
    container = PlacedContainer(
        service_id=uuid4(),
        deployment_id=uuid4(),
        deployment_status=draw(
            st.sampled_from([*12 * [DeploymentStatus.RUNNING], *6 * [DeploymentStatus.DEPLOYING], *DeploymentStatus])
        ),
        worker=worker,
        policy=policy,
        mass_failure=FAILURES.get(worker.mass_failure_id or 0),
        last_migration_at=migration.created_at
        if migration and migration.of_current and migration.keeps_source
        else None,
        is_applied=swarm_service_id is not None and untold_since is None,
        is_current=draw(mostly(True, False)),
        has_unfinished_migration=migration is not None and not migration.is_finished,
    )
    return Case(
        container,
        draw(mostly(ServiceStatus.RUNNING, ServiceStatus.DELETED)),
        unsaid if is_unsaid else json.dumps({"containerMigrationPolicy": policy.value}),
        swarm_service_id,
        untold_since,
        draw(mostly(False, True)),
        migration,
    )


def edge(*, cause: MigrationCause, past: dict[str, Any] | None = None, **facts: Any) -> Case:
    """A container on an offline worker whose facts meet in a moment; random ones seldom do."""
    worker = Worker(
        id=uuid4(),
        name="w",
        hostname="h",
        ip_address="10.0.0.1",
        status=WorkerStatus.OFFLINE,
        capacity=Capacity(),
        load=Load(),
        created_at=AN_HOUR_AGO,
        updated_at=NOW,
        status_changed_at=A_MINUTE_AGO,
        drain_requested_at=A_MINUTE_AGO if cause is MigrationCause.DRAIN else None,
    )
    before = Past(uuid4(), cause, MigrationState.FAILED, A_MINUTE_AGO, True, True, True)
    migration = None if past is None else replace(before, **past)
    container = PlacedContainer(
        service_id=uuid4(),
        deployment_id=uuid4(),
        deployment_status=DeploymentStatus.RUNNING,
        worker=replace(worker, **facts),
        policy=MigrationPolicy.AUTOMATIC,
        mass_failure=None,
        last_migration_at=migration.created_at if migration else None,
        has_unfinished_migration=migration is not None and not migration.is_finished,
    )
    return Case(container, ServiceStatus.RUNNING, None, "engine", None, False, migration)


FAILED, DRAIN = MigrationCause.WORKER_FAILED, MigrationCause.DRAIN
EVICTION_EDGES = [
    edge(cause=FAILED, last_heartbeat_at=A_MINUTE_AGO, stopped_at=A_MINUTE_AGO),
    edge(cause=FAILED, past={"created_at": A_MINUTE_AGO}),
    edge(cause=DRAIN, drain_deadline_at=NOW),
    edge(cause=DRAIN, past={"created_at": A_MINUTE_AGO}),
    edge(cause=DRAIN, past={"created_at": AN_HOUR_AGO}, drain_requested_at=AN_HOUR_AGO),
]
CALL_OFF_EDGES = [
    edge(cause=DRAIN, past={"is_finished": False}, drain_deadline_at=NOW),
    edge(cause=DRAIN, past={"is_finished": False}, drain_deadline_at=NOW + timedelta(microseconds=1)),
    edge(cause=FAILED, past={"is_finished": False}, status=WorkerStatus.ACTIVE, drain_finished_at=NOW),
]


@settings(max_examples=200)
@example(drawn=EVICTION_EDGES)
@given(drawn=st.lists(cases(pasts | pasts | st.none()), min_size=6, max_size=12))
def test_the_query_evicts_exactly_what_the_rule_does(context: Context, drawn: list[Case]) -> None:
    wanted = {
        case.container.service_id: verdict
        for case in drawn
        if not case.worker_is_removed and (verdict := eviction.evict(case.container, NOW))
    }
    with context.db.transaction() as tx:
        write(tx, drawn)
        picked = [container.service_id for container in store.candidates(tx)]
        evicted = {migration.service_id: migration.id for migration in monitor.evict(tx)}
        rows = tx.execute(
            sa.text(
                "SELECT service_id, cause, state, reason, mass_failure_id FROM container_migrations "
                "WHERE id = ANY (:ids)"
            ),
            {"ids": list(evicted.values())},
        ).all()
        assert monitor.evict(tx) == [], "each container is evicted once"
    assert sorted(picked) == sorted(wanted)
    assert {row.service_id: eviction.Verdict(*row[1:]) for row in rows} == wanted


@settings(max_examples=200)
@example(drawn=CALL_OFF_EDGES)
@given(drawn=st.lists(cases(unstarted_pasts | unstarted_pasts | pasts), min_size=6, max_size=12))
def test_the_query_calls_off_exactly_what_the_rule_does(context: Context, drawn: list[Case]) -> None:
    wanted = {}
    for case in drawn:
        past = case.migration
        if past and not past.is_finished and past.state not in (*STARTED, MigrationState.CANCELLED):
            reason = eviction.called_off(unstarted(case, past), NOW)
            if reason:
                wanted[past.id] = reason
    with context.db.transaction() as tx:
        write(tx, drawn)
        picked = [migration.id for migration in store.doubtful(tx)]
        cancelled = {migration.id: migration.reason for migration in monitor.call_off(tx)}
    assert sorted(picked) == sorted(wanted)
    assert cancelled == wanted


def unstarted(case: Case, past: Past) -> UnstartedMigration:
    """Return the migration as the rule sees it."""
    container = case.container
    current = container.deployment_id if container.is_current else None
    source = (container.deployment_id if past.of_current else "before") if past.keeps_source else None
    statuses = {container.deployment_id: container.deployment_status, "before": DeploymentStatus.RUNNING}
    return UnstartedMigration(
        id=past.id,
        cause=past.cause,
        service_status=case.service_status,
        is_current=source == current,
        deployment_status=statuses.get(source) if source else None,
        worker=None if case.worker_is_removed else container.worker,
    )


def write(tx: sa.Connection, drawn: list[Case]) -> None:
    """Write the cases, and nothing else, their times moved so that NOW is the transaction's."""
    for table in TABLES:
        tx.execute(sa.text(f"DELETE FROM {table}"))
    later = db.now(tx) - NOW
    for failure in FAILURES.values():
        insert(tx, later, "mass_failures", failure._asdict())
    for case in drawn:
        write_case(tx, later, case)


def write_case(tx: sa.Connection, later: timedelta, case: Case) -> None:
    container, past, organization_id, before = case.container, case.migration, uuid4(), uuid4()
    worker = container.worker
    if not case.worker_is_removed:
        fields = (
            "id name hostname ip_address created_at last_heartbeat_at stopped_at status_changed_at drain_requested_at "
            "drain_finished_at drain_deadline_at mass_failure_id engine_failed_at status"
        )
        insert(
            tx, later, "container_workers", {"auth_token_hash": ""} | {n: getattr(worker, n) for n in fields.split()}
        )
    names = {"id": organization_id, "name": "o", "slug": str(organization_id), "settings": case.organization_settings}
    insert(tx, later, "organizations", names)
    service = {"id": container.service_id, "organization_id": organization_id, "name": "s", "slug": "s"}
    insert(tx, later, "container_services", service | {"status": case.service_status})
    deployment = {
        "id": container.deployment_id,
        "service_id": container.service_id,
        "worker_id": None if case.worker_is_removed else worker.id,
        "image_tag": "app:1",
        "status": container.deployment_status,
        "swarm_service_id": case.swarm_service_id,
        "untold_since": case.untold_since,
    }
    insert(tx, later, "container_deployments", deployment)
    insert(tx, later, "container_deployments", deployment | {"id": before, "status": "running", "worker_id": None})
    if container.is_current:
        current = "UPDATE container_services SET current_deployment_id = :deployment WHERE id = :service"
        tx.execute(sa.text(current), {"deployment": container.deployment_id, "service": container.service_id})
    if past:
        source = container.deployment_id if past.of_current else before
        values = {
            "id": past.id,
            "service_id": container.service_id,
            "source_worker_id": worker.id,
            "source_deployment_id": source if past.keeps_source else None,
            "cause": past.cause,
            "state": past.state,
            "created_at": past.created_at,
            "finished_at": NOW if past.is_finished else None,
        }
        insert(tx, later, "container_migrations", values)


def insert(tx: sa.Connection, later: timedelta, table: str, values: dict[str, Any]) -> None:
    """Insert a row, its times moved."""
    moved = {name: value + later if isinstance(value, datetime) else value for name, value in values.items()}
    columns, holders = ", ".join(moved), ", ".join(f":{name}" for name in moved)
    overriding = "OVERRIDING SYSTEM VALUE " if table == "mass_failures" else ""
    tx.execute(sa.text(f"INSERT INTO {table} ({columns}) {overriding}VALUES ({holders})"), moved)
