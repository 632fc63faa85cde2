"""The facts that decide whether a container must leave its worker, and whether a migration is still wanted."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from skyctl.domain.cluster import MassFailure, Worker
from skyctl.domain.states import DeploymentStatus, MigrationCause, MigrationPolicy, ServiceStatus


@dataclass(frozen=True, slots=True)
class PlacedContainer:
    """The container of a deployment on a worker, with all that decides whether it must leave.

    `is_applied`: the engine runs it by this deployment's order. `is_current`: it is the service's current deployment.
    `mass_failure` is the one by which the worker failed. `last_migration_at`: when the latest migration off this
    deployment was written down. `has_unfinished_migration` is about the service.
    """

    service_id: UUID
    deployment_id: UUID
    deployment_status: DeploymentStatus
    worker: Worker
    policy: MigrationPolicy
    mass_failure: MassFailure | None
    last_migration_at: datetime | None
    is_applied: bool = True
    is_current: bool = True
    has_unfinished_migration: bool = False


@dataclass(frozen=True, slots=True)
class UnstartedMigration:
    """A migration that has not started, with all that decides whether it is still wanted.

    `is_current`: its source is the service's current deployment. `deployment_status` and `worker` are the source's,
    None where that was removed.
    """

    id: UUID
    cause: MigrationCause
    service_status: ServiceStatus
    is_current: bool
    deployment_status: DeploymentStatus | None
    worker: Worker | None
