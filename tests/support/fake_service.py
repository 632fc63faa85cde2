"""A service of the swarm in memory, and how it is seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import (
    Document,
    EngineService,
    EngineSpec,
    EngineTask,
    Mount,
    Requirements,
    host_ports_of,
    reserved_for,
    stops_first,
)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakeService:
    """A service; `deployed` is the label of its containers, `since` when it was last changed by order, `asks` what it
    requires of its node beside what the spec does, `document` what else a real engine has of it."""

    id: str
    spec: EngineSpec
    version: int
    deployed: str
    replicas: int = 1
    update: str = ""
    goes_back_to: EngineSpec | None = None
    since: datetime = EPOCH
    mounts: tuple[Mount, ...] = ()
    asks: dict[str, Any] = field(default_factory=dict)
    is_doubled: bool = False
    is_moved: bool = False
    is_held: bool = False
    tasks: list[EngineTask] = field(default_factory=list)
    pins: dict[str, str] = field(default_factory=dict)  # of each task: the node for which it was made
    document: Document = field(default_factory=dict)
    former: Document | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def labels(self) -> Mapping[str, str]:
        return self.spec.labels

    def requirements(self) -> Requirements:
        """What it asks of its node."""
        asks = dict(self.asks)
        whole = Requirements(
            constraints=(*asks.pop("constraints", ()), f"node.id=={self.spec.node_id}"),
            reserved=reserved_for(self.spec.limits),
            host_ports=host_ports_of(self.spec.ports, self.spec.endpoint_mode),
        )
        return replace(whole, **asks)

    def stops_first(self) -> bool:
        """Whether a new container waits for the end of the old one: where the service was changed, not moved, and its
        node publishes a port of it."""
        return stops_first(self.spec.ports, self.spec.endpoint_mode) and not self.is_moved

    def seen(self) -> EngineService:
        """What an engine shows of it."""
        spec = self.spec
        return EngineService(
            self.id,
            spec.name,
            self.version,
            spec.image,
            dict(spec.labels),
            spec.node_id,
            self.replicas,
            spec.endpoint_mode,
            Capacity(spec.limits.cpu_cores, spec.limits.memory_mb),
            self.update,
            tasks=tuple(self.tasks),
            ports=tuple(spec.ports),
            mounts=self.mounts,
            requirements=self.requirements(),
        )
