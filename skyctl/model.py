"""The words of the project: frozen values without behaviour beyond their own arithmetic.

Times are aware datetimes of the database's clock; percents are 0 to 100; memory is MiB, disk GiB.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class WorkerStatus(StrEnum):
    """What the monitor concluded of a worker (mission document, Status Values)."""

    PENDING = "pending"
    ACTIVE = "active"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a worker has."""

    cpu_cores: float = 0
    memory_mb: float = 0
    disk_gb: float = 0


class Load(NamedTuple):
    """What a worker reported of its use; percents are finite, 0 to 100."""

    cpu_percent: float = 0
    memory_percent: float = 0
    disk_percent: float = 0
    container_count: int = 0


@dataclass(frozen=True, slots=True)
class Worker:
    """A host of the cluster: what was set, what it reported, what the monitor concluded. Never its token."""

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
    stopped_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where health ends (mission document, Health Detection): percents above which a worker is exhausted, and silence."""

    heartbeat_timeout: timedelta = timedelta(seconds=120)
    cpu_percent: float = 90
    memory_percent: float = 95
    disk_percent: float = 90


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the health rule concludes of a worker, and the figure that decided it."""

    status: WorkerStatus
    reason: str


class Beat(NamedTuple):
    """One heartbeat as it arrived: whose it says it is, the SHA-256 hex of its token, its load."""

    worker_id: str
    token_hash: str
    load: Load


@dataclass(frozen=True, slots=True)
class Registration:
    """What a host says of itself when it joins."""

    hostname: str
    ip_address: str
    capacity: Capacity
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerPage:
    """One page of workers, how many there are in all, and when this was read."""

    workers: tuple[Worker, ...]
    total: int
    limit: int
    offset: int
    read_at: datetime
    monitor_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """The cluster in figures. Capacity, load and containers count the workers that are heard from (active, unhealthy, draining);
    `load` is weighted by capacity, `plain_load` gives each of those workers the same weight."""

    by_status: Mapping[WorkerStatus, int]
    capacity: Capacity
    load: Load
    plain_load: Load

    @property
    def total(self) -> int:
        """All workers, whatever their status."""
        return sum(self.by_status.values())


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a worker, as the log keeps it."""

    kind: str
    worker_id: UUID | None
    worker_name: str | None
    actor: str
    from_status: WorkerStatus | None = None
    to_status: WorkerStatus | None = None
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SwarmJoin:
    """What a host needs to join the swarm as a worker: the manager's `host:port` and the join token (a secret)."""

    address: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A worker that was invited, and the token by which it joins (a secret, stored only as its SHA-256)."""

    worker_id: UUID
    token: str = field(repr=False)
