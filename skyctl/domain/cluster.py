"""Workers, their health, events and alerts: frozen values without behaviour beyond their own arithmetic.

Times are aware datetimes of the database's clock; percents are 0 to 100; memory is MiB, disk GiB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

from skyctl.domain.event_details import Details
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.wishes import AlertSilence, Cordon

D = TypeVar("D", bound=Details)

ImageVolumes = Mapping[str, Sequence[str]]
"""Where containers have volumes without a name, which their images declare: paths, by the swarm's id of the service."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The resources of a worker."""

    cpu_cores: float = 0
    memory_mb: float = 0
    disk_gb: float = 0


class Load(NamedTuple):
    """The use that a worker reported; percents are finite, 0 to 100."""

    cpu_percent: float = 0
    memory_percent: float = 0
    disk_percent: float = 0
    container_count: int = 0


@dataclass(frozen=True, slots=True)
class Worker:
    """A host of the cluster: what was set, what it reported, what the monitor concluded. Never its token.

    `recent_cpu`: the CPU percent of its last heartbeats without a longer gap, at most ten, the latest first; empty
    where they are not known, as of a worker that the panel's API hears. `concluded_status`: the last that the monitor
    concluded; None before it did.
    """

    id: UUID
    name: str
    hostname: str
    ip_address: str
    status: WorkerStatus
    capacity: Capacity
    load: Load
    created_at: datetime
    updated_at: datetime
    last_heartbeat_at: datetime | None = None
    swarm_node_id: str | None = None
    drain_requested_at: datetime | None = None
    drain_reason: str | None = None
    drain_deadline_at: datetime | None = None
    drain_finished_at: datetime | None = None
    cordon: Cordon | None = None
    alert_silence: AlertSilence | None = None
    undrained_at: datetime | None = None
    stopped_at: datetime | None = None
    status_changed_at: datetime | None = None
    concluded_status: WorkerStatus | None = None
    flapping_since: datetime | None = None
    mass_failure_id: int | None = None
    token_revoked_at: datetime | None = None
    token_revoked_reason: str | None = None
    agent_offered: str | None = None
    agent_offered_at: datetime | None = None
    agent_signature: str | None = None
    swarm_node_claim: str | None = None
    swarm_node_confirmed_at: datetime | None = None
    swarm_node_trouble: str | None = None
    engine_away_since: datetime | None = None
    engine_away_seen_at: datetime | None = None
    node_down_since: datetime | None = None
    node_down_seen_at: datetime | None = None
    engine_failed_at: datetime | None = None
    recent_cpu: Sequence[float] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known_status(self) -> WorkerStatus:
        """The status that people know: the panel's API writes another one as soon as it hears the worker."""
        return self.concluded_status or self.status

    @property
    def container_count(self) -> int | None:
        """How many containers run there; None while its engine does not say."""
        is_known = not self.engine_away_since and self.metadata.get("containerCountKnown") is not False
        return self.load.container_count if is_known else None

    @property
    def engine_trouble(self) -> str:
        """Why its engine does not answer, as its agent said last; empty where it said nothing."""
        trouble = self.metadata.get("engineTrouble") if self.engine_away_since else None
        return trouble if isinstance(trouble, str) else ""

    @property
    def confirmed_node(self) -> str | None:
        """The swarm node that the engine shows to be the worker's."""
        return self.swarm_node_id if self.swarm_node_confirmed_at else None


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The limits beyond which a worker is offline, unhealthy or flapping, and many of them are a mass failure.

    `heartbeat_timeout`: the longest silence, `engine_grace`: of its engine. `*_percent`: above it a worker is
    exhausted; above that of CPU for `cpu_heartbeats` in a row. `flap_*`: so many transitions within the window hold it
    out of placement until it was quiet for `flap_quiet`. `mass_*`: so many that failed within the window, of those that
    can take more, are a mass failure.
    """

    heartbeat_timeout: timedelta = timedelta(seconds=120)
    heartbeat_interval: timedelta = timedelta(seconds=30)
    engine_grace: timedelta = timedelta(seconds=60)
    cpu_percent: float = 90
    cpu_heartbeats: int = 2
    memory_percent: float = 95
    disk_percent: float = 90
    flap_transitions: int = 3
    flap_window: timedelta = timedelta(minutes=10)
    flap_quiet: timedelta = timedelta(minutes=5)
    mass_workers: int = 3
    mass_share: float = 0.5
    mass_window: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """The limits on how often people are alerted: exhaustion again only after its cooldown; more than `one_by_one`
    workers that change in one pass share an alert."""

    exhaustion_cooldown: timedelta = timedelta(minutes=15)
    one_by_one: int = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """The health rule's conclusion about a worker, the figure that decided it, and whether its engine has failed."""

    status: WorkerStatus
    reason: str
    engine_failed: bool = False


class Heartbeat(NamedTuple):
    """One heartbeat as it arrived: whose it says it is, the SHA-256 hex of its token, what it says of its host, for how
    many seconds the engine has not answered there (None: it answers), and its image volumes (None: it says nothing)."""

    worker_id: str
    token_hash: str
    load: Load
    engine_silent: float | None = None
    image_volumes: ImageVolumes | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """A host's description of itself when it joins; `came_from` is the address from which the manager got it."""

    hostname: str
    ip_address: str
    capacity: Capacity
    metadata: Mapping[str, Any] = field(default_factory=dict)
    came_from: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerPage:
    """One page of workers, how many there are in all, and when this was read; when a monitor last checked them all.
    `total_is_least`: there are more than `total`, and nobody counted how many. `next`: after which place the next page
    begins, where there may be one; None where the pages are in another order than that of the names."""

    workers: tuple[Worker, ...]
    total: int
    limit: int | None
    offset: int
    read_at: datetime
    monitor_seen_at: datetime | None
    monitor_leads: bool
    total_is_least: bool = False
    next: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """The cluster in figures. Capacity, load and containers count the workers that are heard from (active, unhealthy,
    draining); `load` is weighted by capacity, `plain_load` gives each of those workers the same weight. `sampled`: of
    how many workers these figures are estimated; None where they are those of all."""

    by_status: Mapping[WorkerStatus, int]
    capacity: Capacity
    load: Load
    plain_load: Load
    sampled: int | None = None

    @property
    def total(self) -> int:
        """All workers, whatever their status."""
        return sum(self.by_status.values())


class Outage(NamedTuple):
    """A time in which no `serve` could have heard a worker."""

    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Actor:
    """An acting person or program: the name that events show, the panel's user, the client's address."""

    name: str
    user_id: UUID | None = None
    ip_address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `seq` and `at`: the log's; `term`: that of the monitor that concluded it."""

    kind: EventKind
    worker_id: UUID | None
    worker_name: str | None
    actor: str
    from_status: WorkerStatus | None = None
    to_status: WorkerStatus | None = None
    reason: str = ""
    details: Details = field(default_factory=Details)
    term: int | None = None
    seq: int = 0
    at: datetime | None = None

    def details_as(self, _shape: type[D]) -> D:
        """Return the details typed as those of the event's kind, which the reader has looked at."""
        return cast(D, self.details)


class Lease(NamedTuple):
    """The right to conclude: who leads, in which term."""

    holder: str
    term: int


class MassFailure(NamedTuple):
    """Many workers that failed at once, until it is lifted: whoever beat last before it was detected is one of them."""

    id: int
    region: str | None
    silent: int
    schedulable: int
    detected_at: datetime
    lifted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The reason for a worker's status, the rule's conclusion from the facts now, and the changes that would alter it.

    `decided_by` is the event of the last change. `silence` is how long a heartbeat would have been heard and none came;
    `deaf` how long since the last one nobody could have heard any.
    """

    worker: Worker
    read_at: datetime
    policy: HealthPolicy
    decided_by: Event | None
    silence: timedelta | None
    deaf: timedelta
    mass_failure: MassFailure | None
    verdict: Verdict
    outlook: Sequence[str]
    monitor_seen_at: datetime | None

    @property
    def is_settled(self) -> bool:
        """Tell whether the status is what the facts call for; else the monitor has not looked yet."""
        return self.verdict.status is self.worker.status


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster at one moment: figures, the workers that need a look first, the last events, who leads, what is held.

    `migrations`: how many are not over, by their state.
    """

    read_at: datetime
    policy: HealthPolicy
    stats: ClusterStats
    worst: Sequence[Worker]
    events: Sequence[Event]
    leader: Lease | None
    monitor_seen_at: datetime | None
    mass_failures: Sequence[MassFailure]
    migrations: Mapping[str, int]


class Incident(NamedTuple):
    """The alerting of a worker's trouble: the alert that opened it, whether it is open, the last one of exhaustion."""

    alert_id: int
    is_open: bool
    exhaustion_alerted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that people are told; `id` and `at` once it is stored. `worker_id` where it is about one worker.

    It is for administrators; where it has an `organization_id`, for the members of that instead.
    """

    kind: str
    worker_id: UUID | None
    title: str
    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    at: datetime | None = None
    organization_id: UUID | None = None


class Delivery(NamedTuple):
    """An alert on its way to a channel, and which attempt this is."""

    alert: Alert
    attempt: int


@dataclass(frozen=True, slots=True)
class Invitation:
    """A worker that was invited, and the token by which it joins (a secret, stored only as its SHA-256)."""

    worker_id: UUID
    token: str = field(repr=False)
