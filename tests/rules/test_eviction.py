"""Eviction: which containers must leave, how, and what calls a migration off, row by row."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from skyctl.domain.cluster import Capacity, Load, MassFailure, Worker
from skyctl.domain.evictions import PlacedContainer, UnstartedMigration
from skyctl.domain.states import DeploymentStatus, MigrationCause, MigrationPolicy, ServiceStatus, WorkerStatus
from skyctl.rules import eviction

NOW = datetime(2026, 11, 1, tzinfo=UTC)
BEFORE = NOW - timedelta(minutes=1)
LONG_AGO = NOW - timedelta(hours=1)
DRAINED = {"status": WorkerStatus.DRAINING, "drain_requested_at": BEFORE}
FAILURE = MassFailure(7, None, 4, 6, BEFORE, None)


def worker(**facts: Any) -> Worker:
    """A worker that went offline a minute ago, unless the facts say otherwise."""
    offline = Worker(
        id=UUID(int=1),
        name="w",
        hostname="h",
        ip_address="10.0.0.1",
        status=WorkerStatus.OFFLINE,
        capacity=Capacity(),
        load=Load(),
        created_at=LONG_AGO,
        updated_at=NOW,
        last_heartbeat_at=LONG_AGO,
        status_changed_at=BEFORE,
    )
    return replace(offline, **facts)


def evicted(on: dict[str, Any], **facts: Any) -> tuple[str, str, str] | None:
    """The cause, state and reason by which a container leaves a worker with these facts; None where it stays."""
    container = PlacedContainer(
        service_id=UUID(int=2),
        deployment_id=UUID(int=3),
        deployment_status=DeploymentStatus.RUNNING,
        worker=worker(**on),
        policy=MigrationPolicy.AUTOMATIC,
        mass_failure=None,
        last_migration_at=None,
    )
    verdict = eviction.evict(replace(container, **facts), NOW)
    return (verdict.cause.value, verdict.state.value, verdict.reason) if verdict else None


WITHOUT_ENGINE = {"status": WorkerStatus.UNHEALTHY, "engine_failed_at": BEFORE}
FAILED = ("worker_failed", "queued", "")
EMPTIED = ("drain", "queued", "")


@pytest.mark.parametrize(
    ("on", "facts", "leaves"),
    [
        ({}, {}, FAILED),
        ({"status": WorkerStatus.ACTIVE}, {}, None),
        ({"status": WorkerStatus.UNHEALTHY}, {}, None),
        (WITHOUT_ENGINE, {}, FAILED),
        (WITHOUT_ENGINE, {"policy": MigrationPolicy.NONE}, None),
        (WITHOUT_ENGINE, {"last_migration_at": BEFORE}, None),
        (WITHOUT_ENGINE, {"last_migration_at": LONG_AGO}, FAILED),
        (WITHOUT_ENGINE, {"mass_failure": FAILURE._replace(lifted_at=NOW)}, FAILED),
        ({"stopped_at": BEFORE}, {}, None),
        ({"stopped_at": LONG_AGO, "last_heartbeat_at": BEFORE}, {}, FAILED),
        ({}, {"policy": MigrationPolicy.NONE}, None),
        ({}, {"policy": MigrationPolicy.MANUAL}, ("worker_failed", "awaiting_approval", eviction.ASK_FIRST)),
        (
            {},
            {"mass_failure": FAILURE},
            ("worker_failed", "held", "4 of 6 workers failed at once: see `skyctl migrations resume`"),
        ),
        ({}, {"mass_failure": FAILURE._replace(lifted_at=NOW)}, FAILED),
        ({}, {"last_migration_at": BEFORE}, None),
        ({}, {"last_migration_at": LONG_AGO}, FAILED),
        ({}, {"has_unfinished_migration": True}, None),
        ({}, {"deployment_status": DeploymentStatus.DEPLOYING}, FAILED),
        ({}, {"deployment_status": DeploymentStatus.STOPPED}, None),
        ({}, {"is_applied": False}, None),
        ({}, {"is_current": False}, None),
        (DRAINED, {}, EMPTIED),
        (DRAINED, {"policy": MigrationPolicy.NONE}, EMPTIED),
        (DRAINED, {"mass_failure": FAILURE}, EMPTIED),
        (DRAINED | {"stopped_at": NOW, "status": WorkerStatus.OFFLINE}, {}, EMPTIED),
        (DRAINED | {"drain_finished_at": NOW}, {}, None),
        (DRAINED | {"drain_deadline_at": NOW}, {}, None),
        (DRAINED | {"drain_deadline_at": NOW + timedelta(seconds=1)}, {}, EMPTIED),
        (DRAINED | {"drain_finished_at": NOW, "status": WorkerStatus.OFFLINE}, {}, FAILED),
        (DRAINED, {"last_migration_at": BEFORE}, None),
        (
            DRAINED | {"status": WorkerStatus.OFFLINE, "status_changed_at": NOW},
            {"last_migration_at": BEFORE},
            EMPTIED,
        ),
    ],
)
def test_each_row_of_the_table(on: dict[str, Any], facts: dict[str, Any], leaves: tuple[str, str, str] | None) -> None:
    assert evicted(on, **facts) == leaves


DRAIN = {"cause": MigrationCause.DRAIN}


@pytest.mark.parametrize(
    ("on", "facts", "reason"),
    [
        ({}, {}, ""),
        ({}, {"is_current": False}, "the service was deployed anew, or removed"),
        ({}, {"service_status": ServiceStatus.DELETED}, "the service was deployed anew, or removed"),
        ({}, {"deployment_status": DeploymentStatus.FAILED}, "its container has stopped"),
        (None, {}, "its worker was removed"),
        ({"status": WorkerStatus.ACTIVE}, {}, "the worker is back"),
        (WITHOUT_ENGINE, {}, ""),
        (DRAINED, {}, ""),
        (DRAINED | {"drain_finished_at": NOW}, {}, "the worker is back"),
        (DRAINED, DRAIN, ""),
        ({}, DRAIN, "the drain was cancelled"),
        (DRAINED | {"drain_deadline_at": NOW}, DRAIN, "the drain's deadline has passed"),
    ],
)
def test_what_calls_a_migration_off(on: dict[str, Any] | None, facts: dict[str, Any], reason: str) -> None:
    migration = UnstartedMigration(
        id=UUID(int=4),
        cause=MigrationCause.WORKER_FAILED,
        service_status=ServiceStatus.RUNNING,
        is_current=True,
        deployment_status=DeploymentStatus.RUNNING,
        worker=None if on is None else worker(**on),
    )
    assert eviction.called_off(replace(migration, **facts), NOW) == reason
