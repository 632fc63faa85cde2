"""Values exchanged with the container engine: what it is to run, and what it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Capacity
from skyctl.domain.states import EndpointMode, ServiceMode

STACK_LABEL = "com.docker.stack.namespace"
NANO = 10**9
MEGABYTE = 2**20
# The engine takes no reservation below these.
_LEAST_CPUS, _LEAST_MEMORY = NANO // 100, 4 * MEGABYTE


class Platform(NamedTuple):
    """An operating system and an architecture, in the words of whoever says so; empty for any."""

    os: str = ""
    arch: str = ""


ANY_PLATFORM = Platform()


class Plugin(NamedTuple):
    """A plugin of an engine: what it is for in Docker's word (`Volume`, `Network`, `Log`), and its name."""

    kind: str
    name: str


class HostPort(NamedTuple):
    """A port that a container's own node publishes."""

    published: int
    protocol: str = "tcp"


class Reserved(NamedTuple):
    """The resources that a container reserves, in the whole units that Swarm compares: billionths of a core, bytes, and
    of each kind of generic resource how many."""

    cpus: int = 0
    memory: int = 0
    generic: tuple[tuple[str, int], ...] = ()


NOTHING_RESERVED = Reserved()


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a service asks of the node of each of its containers, in Docker's words: its constraints, the platforms of
    its image (any of them will do; none: all), the plugins that it needs, what it reserves, the ports that its node
    publishes, and how many of its containers may be on one node (0: any number)."""

    constraints: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    plugins: tuple[Plugin, ...] = ()
    reserved: Reserved = NOTHING_RESERVED
    host_ports: tuple[HostPort, ...] = ()
    max_replicas: int = 0


NO_REQUIREMENTS = Requirements()


@dataclass(frozen=True, slots=True)
class Mount:
    """What a container mounts: `type` in Docker's word, the folder or the volume (`source`, empty for a volume without
    a name), and of a volume the driver (empty: Docker's own) with its options. `of_image_on`: its image declares it, as
    the agents of these nodes have told, and the service itself does not say so."""

    type: str
    source: str
    target: str
    read_only: bool = False
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    of_image_on: frozenset[str] = frozenset()

    @property
    def of_image(self) -> bool:
        """Whether its image declares it, and not the service itself."""
        return bool(self.of_image_on)

    @property
    def place(self) -> str:
        """Where its data are: the folder or the volume, or where the container has it."""
        return f"{self.target} (a volume of its image)" if self.of_image else self.source or self.target


Document = dict[str, Any]
"""A document of Docker's API."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port that the swarm publishes (0: one that it chooses), the container's own, and `tcp` or `udp`."""

    published: int
    target: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A service as the engine is to run it: one container, pinned to a node, or several that the swarm places by itself
    (`node_id` is null). `alias` is its name within the network."""

    name: str
    network: str
    alias: str
    node_id: str | None
    image: str
    limits: Capacity
    labels: Mapping[str, str]
    network_labels: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[Port] = ()
    endpoint_mode: EndpointMode = EndpointMode.VIP
    command: Sequence[str] = ()
    replicas: int = 1


class RestartPolicy(NamedTuple):
    """When the swarm starts another container in the place of one that has ended: `none`, `on-failure` or `any` in
    Docker's words, so many times at most (0: any number of times), counted over the last so many seconds (0: over the
    service's whole life)."""

    condition: str = "any"
    attempts: int = 0
    window_seconds: float = 0


def reserved_for(limits: Capacity) -> Reserved:
    """What a service of ours reserves of its limits: half of them."""
    cpus, memory = round(limits.cpu_cores * NANO), round(limits.memory_mb * MEGABYTE)
    return Reserved(max(cpus // 2, _LEAST_CPUS) if cpus else 0, max(memory // 2, _LEAST_MEMORY) if memory else 0)


def host_ports_of(ports: Sequence[Port], mode: EndpointMode) -> tuple[HostPort, ...]:
    """The ports of a service of ours that its node publishes, without those that the engine chooses. Only a virtual IP
    can be published by the whole swarm; without one it is the container's node that publishes."""
    if mode is EndpointMode.VIP:
        return ()
    return tuple(HostPort(port.published, port.protocol) for port in ports if port.published)


def stops_first(ports: Sequence[Port], mode: EndpointMode) -> bool:
    """Tell whether the container of a service of ours is stopped before the next one starts: two of them could not have
    the same port of a node, and the new one would wait for the old one for ever."""
    return bool(host_ports_of(ports, mode))


class ServiceVersion(NamedTuple):
    """A service's id, the version that a change of it must name, and its labels."""

    id: str
    version: int
    labels: Mapping[str, str]


class ServiceDocument(NamedTuple):
    """The version that a change of a service must name, its whole specification, and the one before its last change
    (null: it was never changed)."""

    version: int
    spec: Document
    former: Document | None


@dataclass(frozen=True, slots=True)
class EngineNode:
    """A node of the swarm: whether the swarm hears it, its availability in Docker's word (`active`, `pause`, `drain`),
    the address from which the swarm hears it (empty where it does not say), whether it manages the swarm, and what its
    engine says: the cores and the memory that it has (0 where it does not say), its labels, its platform, its plugins
    (none where it does not say), and of each kind of generic resource how many. `labels` are the swarm's own."""

    id: str
    hostname: str
    is_up: bool
    availability: str
    address: str = ""
    is_manager: bool = False
    capacity: Capacity = field(default_factory=Capacity)
    labels: Mapping[str, str] = field(default_factory=dict)
    engine_labels: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = ANY_PLATFORM
    plugins: frozenset[Plugin] = frozenset()
    generic: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineTask:
    """A container of a service, or one that is to be: its state and the wanted one in Docker's words, and the engine's
    error.

    `deployment_id` is the label of the deployment that the service was last deployed by when the container was created,
    empty where it has none: a move changes the labels of the service and not those of its containers. `node_id` is null
    until a node is found, `exit_code` until it has ended by itself. Of what failed there may be several, and the swarm
    forgets all but the last few. `reserved` is what it was given of its node, `host_ports` what its node publishes of
    it by now.
    """

    id: str
    node_id: str | None
    state: str
    wanted: str
    error: str
    container_id: str | None
    deployment_id: str
    created_at: datetime
    reserved: Reserved = NOTHING_RESERVED
    host_ports: tuple[HostPort, ...] = ()
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class EngineService:
    """A service as the swarm has it: `version` is what a change must name, and the swarm itself raises it too as an
    update goes on; `node_id` where it is pinned, `replicas` null for all but a replicated one; `update` the state of
    its last update in Docker's word (empty for none), with Docker's message; by what beside the pin it is bound to one
    node; its tasks, the oldest first; the ports that it publishes; what it mounts, and what it asks of a node; when
    its containers are started again."""

    id: str
    name: str
    version: int
    image: str
    labels: Mapping[str, str]
    node_id: str | None
    replicas: int | None
    endpoint_mode: EndpointMode
    limits: Capacity
    update: str = ""
    update_message: str = ""
    bound_by: Sequence[str] = ()
    tasks: Sequence[EngineTask] = ()
    ports: Sequence[Port] = ()
    mounts: Sequence[Mount] = ()
    mode: ServiceMode = ServiceMode.REPLICATED
    requirements: Requirements = NO_REQUIREMENTS
    restarts: RestartPolicy = field(default_factory=RestartPolicy)

    @property
    def stack(self) -> str:
        """The stack that it is of; empty for none."""
        return self.labels.get(STACK_LABEL, "")


class NodeTask(NamedTuple):
    """A container on a node, and the service that it is of, by its id and its name in the engine."""

    service_id: str
    service_name: str
    task: EngineTask


class Occupant(NamedTuple):
    """The containers of a service on a node that have not ended, by the service's name in the engine: how many, how
    many of them an agent counts there, and how many are to end."""

    service_id: str
    name: str
    containers: int
    counted: int
    ending: int


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What is left of a node, as Swarm counts it: free billionths of a core and bytes (below 0 where more is reserved
    than it has), of each kind of generic resource how many are free, the ports that it publishes for containers, and
    how many containers of each service it is to have."""

    cpus: int
    memory: int
    generic: Mapping[str, int] = field(default_factory=dict)
    host_ports: frozenset[HostPort] = frozenset()
    containers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """The engine's state at one moment: its nodes, and services by their id."""

    nodes: Mapping[str, EngineNode]
    services: Mapping[str, EngineService]


@dataclass(frozen=True, slots=True)
class NodeClaim:
    """A worker's claim that a node of the swarm is its own: what it says of itself, the address from which it said so
    (null: it was written by somebody else, or by an older version), the node that an administrator says is this
    worker's, and whether people know already that the claim contradicts the engine."""

    worker_id: UUID
    worker_name: str
    node_id: str
    hostname: str
    ip_address: str
    came_from: str | None
    allowed: str | None
    trouble: str | None
    is_refuted: bool


class Place(NamedTuple):
    """Where a worker is: its hostname, the address from which it registered (else the one that its row says), the nodes
    that its row names, whether its agent never says one, whether one is confirmed, whether it was ever heard, and why a
    claim of it does not count."""

    worker_id: UUID
    name: str
    hostname: str
    address: str
    node_ids: Sequence[str]
    is_silent: bool
    is_confirmed: bool = False
    is_heard: bool = True
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class SwarmJoin:
    """The means to join the swarm as a worker: the manager's `host:port` and the join token (a secret)."""

    address: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EngineState:
    """A Docker engine's description of itself: its version, how it stands to a swarm in Docker's own word (`inactive`:
    in none; `active`), whether it manages that swarm, what the swarm complains of, and its own node of it."""

    version: str
    swarm: str
    manages: bool
    trouble: str = ""
    node_id: str = ""
