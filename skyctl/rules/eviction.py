"""Eviction: which containers must leave their worker, by whose decision, and when an eviction is called off.

A container must leave once for each time that its worker fails or is to be emptied. Read from the top, the first line
that fits decides about a container that the engine runs as its service's current deployment.

    another migration of its service is unfinished               stays
    the worker is to be drained, and the drain is neither        leaves: queued, whatever its organization's policy
    over nor past its deadline
    the worker is neither offline nor without its engine, or     stays
    was stopped on purpose
    its organization wants nothing moved                         stays
    its organization wants to be asked                           leaves: awaiting approval
    its worker failed with many others                           leaves: held until the mass failure is lifted
    else                                                         leaves: queued

`store/evictions.py` picks the same containers by a query, so that an idle pass reads no rows; a property test compares.
"""

from datetime import datetime
from typing import NamedTuple

from skyctl.domain.cluster import MassFailure, Worker
from skyctl.domain.evictions import PlacedContainer, UnstartedMigration
from skyctl.domain.states import (
    DeploymentStatus,
    MigrationCause,
    MigrationPolicy,
    MigrationState,
    ServiceStatus,
    WorkerStatus,
)
from skyctl.rules.health import stopped_on_purpose

RUNS = (DeploymentStatus.DEPLOYING, DeploymentStatus.RUNNING)
OVERDUE = "the drain's deadline has passed"
ASK_FIRST = "its organization wants to be asked: see `skyctl migrations approve`"


class Verdict(NamedTuple):
    """The way a container leaves; `mass_failure_id` is the mass failure that its worker failed by, while not lifted."""

    cause: MigrationCause
    state: MigrationState
    reason: str = ""
    mass_failure_id: int | None = None


def evict(container: PlacedContainer, now: datetime) -> Verdict | None:
    """Return how a container must leave its worker at `now`; None where it stays."""
    worker = container.worker
    cause = _cause(worker, now)
    if cause is None or not _may_move(container) or _left_since(container, cause):
        return None
    if cause is MigrationCause.DRAIN:
        return Verdict(cause, MigrationState.QUEUED)
    return after_failure(container.policy, container.mass_failure)


def after_failure(policy: MigrationPolicy, mass_failure: MassFailure | None) -> Verdict | None:
    """Return how what is to leave a failed worker does, by its organization's policy and the mass failure by which the
    worker failed; None where it stays."""
    cause, failure = MigrationCause.WORKER_FAILED, mass_failure if mass_failure and not mass_failure.lifted_at else None
    number = failure.id if failure else None
    if policy is MigrationPolicy.NONE:
        return None
    if policy is MigrationPolicy.MANUAL:
        return Verdict(cause, MigrationState.AWAITING_APPROVAL, ASK_FIRST, number)
    if failure:
        return Verdict(cause, MigrationState.HELD, _held_reason(failure), number)
    return Verdict(cause, MigrationState.QUEUED)


def called_off(migration: UnstartedMigration, now: datetime) -> str:
    """Return why a migration that has not started is called off at `now`; empty where it is still wanted."""
    worker = migration.worker
    if migration.service_status is ServiceStatus.DELETED or not migration.is_current:
        return "the service was deployed anew, or removed"
    if migration.deployment_status is not None and migration.deployment_status not in RUNS:
        return "its container has stopped"
    if worker is None:
        return "its worker was removed"
    if migration.cause is MigrationCause.DRAIN:
        if worker.drain_requested_at is None:
            return "the drain was cancelled"
        return OVERDUE if _drain_is_overdue(worker, now) else ""
    is_back = _failed_at(worker) is None
    return "the worker is back" if is_back and not _drain_is_open(worker) else ""


def _may_move(container: PlacedContainer) -> bool:
    return (
        container.is_current
        and container.is_applied
        and container.deployment_status in RUNS
        and not container.has_unfinished_migration
    )


def _cause(worker: Worker, now: datetime) -> MigrationCause | None:
    if _drain_is_open(worker) and not _drain_is_overdue(worker, now):
        return MigrationCause.DRAIN
    has_failed = _failed_at(worker) is not None and not stopped_on_purpose(worker)
    return MigrationCause.WORKER_FAILED if has_failed else None


def _failed_at(worker: Worker) -> datetime | None:
    """Return since when what runs there counts as failed: the worker is offline, or without its engine."""
    if worker.status is WorkerStatus.OFFLINE:
        return worker.status_changed_at or worker.created_at
    return worker.engine_failed_at if worker.status in (WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING) else None


def _drain_is_open(worker: Worker) -> bool:
    return worker.drain_requested_at is not None and worker.drain_finished_at is None


def _drain_is_overdue(worker: Worker, now: datetime) -> bool:
    return worker.drain_deadline_at is not None and worker.drain_deadline_at <= now


def _left_since(container: PlacedContainer, cause: MigrationCause) -> bool:
    """Tell whether a migration of this deployment was written down since the cause came about."""
    worker, migrated_at = container.worker, container.last_migration_at
    if migrated_at is None:
        return False
    failed_at = _failed_at(worker)
    if cause is MigrationCause.DRAIN:
        return migrated_at >= max(since for since in (worker.drain_requested_at, failed_at) if since)
    return failed_at is not None and migrated_at >= failed_at


def _held_reason(failure: MassFailure) -> str:
    return f"{failure.silent} of {failure.schedulable} workers failed at once: see `skyctl migrations resume`"
