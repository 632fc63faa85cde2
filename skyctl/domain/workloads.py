"""The workloads of the workers: services, their deployments, migrations.

A service of one container is deployed to a worker, and each move to another one is a new deployment of it. Where it has
several, the swarm places them, and its deployment is on no worker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Capacity, Worker
from skyctl.domain.engine import NO_REQUIREMENTS, EngineNode, EngineService, NodeUse, Port, Requirements
from skyctl.domain.states import (
    DeploymentStatus,
    EndpointMode,
    EvenIf,
    MigrationCause,
    MigrationPolicy,
    MigrationState,
    ServiceStatus,
)

# What a service may use where nothing is said, as in the panel.
DEFAULT_LIMITS = Capacity(cpu_cores=1, memory_mb=512, disk_gb=10)


@dataclass(frozen=True, slots=True)
class MigrationSettings:
    """The limits of migrations: at most `at_once` of them, `into_one` of these to the same worker; an attempt is rolled
    back after `timeout`, and the migration given up after `attempts`. A service is down once none of its containers has
    run for `down_grace`; a deployment has failed where it does not run `deployment_timeout` after the engine was told
    of it."""

    at_once: int = 4
    into_one: int = 2
    timeout: timedelta = timedelta(minutes=5)
    attempts: int = 3
    down_grace: timedelta = timedelta(seconds=30)
    deployment_timeout: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Organization:
    """Whom services belong to, and what it wants when a worker fails."""

    id: UUID
    name: str
    slug: str
    policy: MigrationPolicy


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """An administrator's requirements of a service. `limits` are the most that each of its containers may use, and what
    is reserved for it.

    `region` and `pool`: only workers that say so in their metadata. Services of one `spread` go to different workers
    where that can be; none of these with more than one of its `replicas`, its containers. One that was `adopted` keeps
    what else the engine has of it, which is not written here.
    """

    name: str
    image: str
    limits: Capacity
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[Port] = ()
    endpoint_mode: EndpointMode = EndpointMode.VIP
    labels: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    region: str | None = None
    pool: str | None = None
    spread: str | None = None
    adopted: bool = False
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Deployment:
    """One placement of a service on a worker (null: the swarm places it). `log` is the engine's own error, where there
    was one; `digest` the one that its image had in the registry when it was deployed, by which the engine runs it; null
    where that is not known."""

    id: UUID
    service_id: UUID
    worker_id: UUID | None
    worker_name: str | None
    swarm_service_id: str | None
    container_id: str | None
    image: str
    status: DeploymentStatus
    log: str
    deployed_at: datetime | None
    stopped_at: datetime | None
    created_at: datetime
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A service under management: what was asked for, what became of it, and where it is now."""

    id: UUID
    organization_id: UUID
    organization: str
    slug: str
    status: ServiceStatus
    spec: ServiceSpec
    current: Deployment | None
    created_at: datetime
    updated_at: datetime
    down_since: datetime | None = None
    down_reason: str | None = None
    ending_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Migration:
    """One move of a container from a worker to another: how far it has come, and why it is not further.

    `attempts` counts those begun, `avoid` are the workers where it failed. `next_attempt_at` is null where it is not
    tried again. `is_hurried`: somebody has cancelled it, or its drain's deadline has passed. `source_stopped_at` is
    null while the old container is not known to have stopped: a lost worker must return for that. What others deployed
    has no row, and so no `service_id` and no organization: it is kept off its worker's node for a while, and may have
    several containers there. `is_left_to_swarm`: the swarm moves it by itself, and nothing is ordered.
    """

    id: UUID
    service_id: UUID | None
    service_name: str
    service_slug: str
    organization_id: UUID | None
    cause: MigrationCause
    state: MigrationState
    reason: str
    source_worker_id: UUID | None
    source_worker_name: str | None
    target_worker_id: UUID | None
    target_worker_name: str | None
    source_deployment_id: UUID | None
    target_deployment_id: UUID | None
    swarm_service_id: str | None
    source_node_id: str | None
    target_node_id: str | None
    avoid: frozenset[UUID]
    cancelled_by: str | None
    is_hurried: bool
    attempts: int
    next_attempt_at: datetime | None
    deadline_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    source_stopped_at: datetime | None
    created_at: datetime
    updated_at: datetime
    is_left_to_swarm: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which no migration is begun because somebody said so; `until_at` is null where he did not say how
    long."""

    paused_at: datetime
    paused_by: str
    until_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Demand:
    """A container that is to be placed, by the id of its deployment or migration: what it needs, and where it may be.

    `source` is the worker that it is to leave, `avoid` those where it failed lately: taken only where there is no
    other. `asks` is what Swarm is to find on its node, its pin aside; `engine_id` the engine's service that it is of,
    empty for none yet.
    """

    id: UUID
    needs: Capacity
    source: UUID | None = None
    avoid: frozenset[UUID] = frozenset()
    region: str | None = None
    pool: str | None = None
    spread: str | None = None
    asks: Requirements = NO_REQUIREMENTS
    engine_id: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker as placement sees it: what deployments reserve on it, how many siblings of each `spread` are there, what
    else speaks against it (that its node is down; empty for nothing), its node, with what is left of it, where that is
    known, and what of the reserved no heartbeat of it tells yet."""

    worker: Worker
    reserved: Capacity
    siblings: Mapping[str, int] = field(default_factory=dict)
    obstacle: str = ""
    node: EngineNode | None = None
    use: NodeUse | None = None
    unmeasured: Capacity = field(default_factory=Capacity)


@dataclass(frozen=True, slots=True)
class Prospect:
    """A worker as a place for one more container: the rule that excludes it, in words (empty: none does). Else what it
    is ranked by, the least first: whether such a container failed there lately, how many siblings are there, and the
    load in percent that it would have with it; null where the swarm ranks, and not we."""

    worker_id: UUID
    worker_name: str
    exclusion: str
    failed_lately: bool = False
    siblings: int = 0
    load_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A service, its move that is not over, if any, why no drain moves it (empty: one does), and every worker as a
    place for a container of it, the best first."""

    service: Service
    move: Migration | None
    stays: str
    prospects: Sequence[Prospect]


@dataclass(frozen=True, slots=True)
class Placement:
    """The worker that a container goes to, and the figure that decided it; `turn` is when it chose among its batch."""

    id: UUID
    worker_id: UUID
    reason: str
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reasons that a container has no place: the number of workers that each cause excludes, and in words what the
    nearest one lacks."""

    id: UUID
    causes: Mapping[str, int]
    reason: str


@dataclass(frozen=True, slots=True)
class ServicePage:
    """One page of services, how many there are in all, and when this was read."""

    services: Sequence[Service]
    total: int
    read_at: datetime


@dataclass(frozen=True, slots=True)
class MigrationPage:
    """One page of migrations, how many there are in all, when this was read; what pauses them, why the engine cannot be
    asked."""

    migrations: Sequence[Migration]
    total: int
    read_at: datetime
    pause: Pause | None
    engine_trouble: str | None


@dataclass(frozen=True, slots=True)
class Adoptable:
    """A service of the engine that is not under management: where it runs (empty where it has several containers), with
    what limits it would be, and what speaks against it (empty for nothing), with the word by which it is taken all the
    same."""

    engine: EngineService
    node: str
    worker_id: UUID | None
    worker_name: str | None
    limits: Capacity
    obstacle: str
    even_if: EvenIf | None = None


class Place(NamedTuple):
    """Where containers of a service run: the worker whose node it is, if any, the node's hostname, and how many."""

    worker_name: str | None
    hostname: str
    containers: int


@dataclass(frozen=True, slots=True)
class SwarmService:
    """A service of the swarm, whoever deployed it, and where it runs."""

    engine: EngineService
    is_managed: bool
    places: Sequence[Place]

    @property
    def running(self) -> int:
        """How many of its containers run."""
        return sum(place.containers for place in self.places)

    @property
    def wanted(self) -> int:
        """How many are to run; of a global service one on each node that it has found."""
        if self.engine.replicas is not None:
            return self.engine.replicas
        return len({task.node_id for task in self.engine.tasks if task.wanted == "running"})


@dataclass(frozen=True, slots=True)
class SwarmDetails:
    """A service of the swarm in all that may be shown of it: of its variables, secrets and configs only the names. `way
    back`: what the swarm's own rollback would do, where that is not what its owner means by it; empty for nothing."""

    service: SwarmService
    variables: Sequence[str] = ()
    secrets: Sequence[str] = ()
    configs: Sequence[str] = ()
    way_back: str = ""
