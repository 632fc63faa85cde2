"""Values exchanged with the container engine: what it is to run, and what it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Capacity
from skyctl.domain.states import EndpointMode

STACK_LABEL = "com.docker.stack.namespace"


@dataclass(frozen=True, slots=True)
class Port:
    """A port that the swarm publishes (0: one that it chooses), the container's own, and `tcp` or `udp`."""

    published: int
    target: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A service as the engine is to run it: one container, pinned to a node. `alias` is its name within the
    network."""

    name: str
    network: str
    alias: str
    node_id: str
    image: str
    limits: Capacity
    labels: Mapping[str, str]
    network_labels: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[Port] = ()
    endpoint_mode: EndpointMode = EndpointMode.VIP
    command: Sequence[str] = ()


class ServiceVersion(NamedTuple):
    """A service's id, the version that a change of it must name, and its labels."""

    id: str
    version: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EngineNode:
    """A node of the swarm: whether the swarm hears it, its availability in Docker's word (`active`, `pause`, `drain`),
    the address from which the swarm hears it (empty where it does not say), whether it manages the swarm, and the
    cores and the memory that its engine says it has (0 where it does not)."""

    id: str
    hostname: str
    is_up: bool
    availability: str
    address: str = ""
    is_manager: bool = False
    capacity: Capacity = field(default_factory=Capacity)


@dataclass(frozen=True, slots=True)
class EngineTask:
    """A container of a service, or one that is to be: its state and the wanted one in Docker's words, and the engine's
    error.

    `deployment_id` is the label of the deployment that the service was last deployed by when the container was created,
    empty where it has none: a move changes the labels of the service and not those of its containers. `node_id` is null
    until a node is found. Of what failed there may be several, and the swarm forgets all but the last few.
    """

    id: str
    node_id: str | None
    state: str
    wanted: str
    error: str
    container_id: str | None
    deployment_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EngineService:
    """A service as the swarm has it: `version` is what a change must name, and the swarm itself raises it too as an
    update goes on; `node_id` where it is pinned, `replicas` null for a global one; `update` the state of its last
    update in Docker's word (empty for none), with Docker's message; what it mounts from its node, by what else it is
    bound to one; its tasks, the oldest first; the ports that it publishes; all that it mounts as `source:target`."""

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
    local_mounts: Sequence[str] = ()
    bound_by: Sequence[str] = ()
    tasks: Sequence[EngineTask] = ()
    ports: Sequence[Port] = ()
    mounts: Sequence[str] = ()

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
