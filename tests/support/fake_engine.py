"""A swarm in memory that does what a real one does, one step with every `observe`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import (
    EngineNode,
    EngineService,
    EngineSpec,
    EngineState,
    EngineTask,
    NodeTask,
    Observation,
    ServiceVersion,
    SwarmJoin,
)
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable

EVERYWHERE = "*"
LABEL = "skypanel.deployment.id"
_ATTEMPTS = 4  # the first one and three more
_KEPT = 5
_ENDED = {"complete", "shutdown", "failed", "rejected", "orphaned"}
_NO_NODE = "no suitable node (scheduling constraints not satisfied on {} nodes)"
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class _Service:
    """A service; `deployed` is the label of its containers, `since` when it was last changed by order."""

    id: str
    spec: EngineSpec
    version: int
    deployed: str
    replicas: int = 1
    update: str = ""
    goes_back_to: EngineSpec | None = None
    since: datetime = _EPOCH
    local_mounts: tuple[str, ...] = ()
    is_doubled: bool = False
    is_held: bool = False
    tasks: list[EngineTask] = field(default_factory=list)
    pins: dict[str, str] = field(default_factory=dict)  # of each task: the node for which it was made


@dataclass
class FakeEngine:
    """An engine whose swarm is `join`; None manages no swarm. Its nodes are added by `add_node`; `own_node` is its own.

    A task takes a step with each `observe`, or all that it can by `settle`. `absent` and `unhealthy` hold pairs of a
    node (or EVERYWHERE) and an image: such an image cannot be started there, or never becomes healthy. While
    `unavailable` is set every call fails, while `refuses` is set every order: with that text. `orders` are those
    that it was given, in order.
    """

    join: SwarmJoin | None
    absent: set[tuple[str, str]] = field(default_factory=set)
    unhealthy: set[tuple[str, str]] = field(default_factory=set)
    unavailable: str = ""
    refuses: str = ""
    orders: list[tuple[str, str]] = field(default_factory=list)
    nodes: dict[str, EngineNode] = field(default_factory=dict)
    own_node: str = ""
    networks: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _services: dict[str, _Service] = field(default_factory=dict)
    _removed: list[NodeTask] = field(default_factory=list)
    _cut: set[str] = field(default_factory=set)
    _numbers: int = 0

    def worker_join(self) -> SwarmJoin | None:
        self._answer()
        return self.join

    def state(self) -> EngineState:
        self._answer()
        swarm = "active" if self.join else "inactive"
        return EngineState("29.0.0", swarm, manages=self.join is not None, node_id=self.own_node)

    def observe(self, service_ids: Collection[str] | None = None) -> Observation:
        self._answer(manages=True)
        self.step()
        wanted = [one for one in self._services.values() if service_ids is None or one.id in service_ids]
        return Observation(dict(self.nodes), {service.id: _seen(service) for service in wanted})

    def tasks_on(self, node_id: str) -> list[NodeTask]:
        self._answer(manages=True)
        self.step()
        of_services = [(each.id, each.spec.name, task) for each in self._services.values() for task in each.tasks]
        return [NodeTask(*each) for each in [*of_services, *self._removed] if each[2].node_id == node_id]

    def find(self, name: str) -> ServiceVersion | None:
        self._answer(manages=True)
        found = self._named(name)
        return ServiceVersion(found.id, found.version, dict(found.spec.labels)) if found else None

    def deploy(self, spec: EngineSpec, version: int | None) -> str:
        self._order("deploy", spec.name)
        self.networks.setdefault(spec.network, dict(spec.network_labels))
        found = self._named(spec.name)
        if (found.version if found else None) != version:
            raise EngineConflict(f"the service {spec.name} is not of version {version}")
        if found is None:
            found = _Service(self._next("service"), spec, self._number(), spec.labels.get(LABEL, ""))
            self._services[found.id] = found
        elif (found.spec, found.replicas) != (spec, 1):
            before = found.spec if found.replicas else None
            self._changed(found, spec)
            found.deployed, found.replicas, found.goes_back_to = spec.labels.get(LABEL, ""), 1, before
        return found.id

    def move(self, service_id: str, version: int, node_id: str, labels: Mapping[str, str]) -> None:
        self._order("move", service_id)
        service = self._services.get(service_id)
        if service is None or service.version != version:
            raise EngineConflict(f"the service {service_id} is not of version {version}")
        wanted = replace(service.spec, node_id=node_id, labels={**service.spec.labels, **labels})
        if wanted != service.spec:
            self._changed(service, wanted)

    def stop(self, service_id: str) -> None:
        self._order("stop", service_id)
        if (service := self._services.get(service_id)) and service.replicas:
            self._changed(service, service.spec)
            service.replicas = 0

    def remove(self, service_id: str) -> None:
        self._order("remove", service_id)
        if removed := self._services.pop(service_id, None):
            left = [task for task in removed.tasks if task.state not in _ENDED]
            self._removed += [
                NodeTask(service_id, f"the removed service {service_id}", replace(task, wanted="remove"))
                for task in left
            ]

    def set_availability(self, node_id: str, availability: str) -> None:
        self._order("set_availability", node_id)
        if node_id not in self.nodes:
            raise EngineRefused(f"node {node_id} not found")
        self.nodes[node_id] = replace(self.nodes[node_id], availability=availability)

    def remove_node(self, node_id: str) -> None:
        self._order("remove_node", node_id)
        self.nodes.pop(node_id, None)
        self._cut.discard(node_id)
        for service in self._services.values():
            service.tasks = [
                replace(task, state="orphaned", wanted="shutdown", container_id=None)
                if task.node_id == node_id and task.state not in _ENDED
                else task
                for task in service.tasks
            ]

    # What happens to it

    def add_node(
        self,
        hostname: str,
        address: str = "10.0.0.1",
        *,
        is_manager: bool = False,
        has: Capacity = Capacity(10_000, 1e8),
    ) -> str:
        """Add a node; return its id."""
        node = EngineNode(self._next("node"), hostname, True, "active", address, is_manager, has)
        self.nodes[node.id] = node
        return node.id

    def promote(self, node_id: str) -> None:
        """Make a node manage the swarm, too."""
        self.nodes[node_id] = replace(self.nodes[node_id], is_manager=True)

    def cut(self, node_id: str) -> None:
        """Cut the node off: nothing changes on it any more, and the swarm has not noticed yet."""
        self._cut.add(node_id)

    def lose(self, node_id: str) -> None:
        """Cut the node, and have the swarm notice it: its containers run on, orphaned."""
        self.cut(node_id)
        self.nodes[node_id] = replace(self.nodes[node_id], is_up=False)

    def heal(self, node_id: str) -> None:
        """Bring the node back: what is not wanted there any more is stopped."""
        self._cut.discard(node_id)
        self.nodes[node_id] = replace(self.nodes[node_id], is_up=True)

    def hold(self, service_id: str) -> None:
        """Keep the containers of the service from becoming healthy."""
        service = self._services[service_id]
        service.is_held = True
        service.tasks = [replace(task, state="starting") for task in service.tasks]

    def evict(self, node_id: str) -> None:
        """Stop what runs on the node, as the swarm does on one that is set to `drain`."""
        for service in self._services.values():
            self._let_go(service, [task for task in service.tasks if task.node_id == node_id])

    def double(self, service_id: str) -> None:
        """Run a second container of the service beside the first, as the swarm does where a node is found down while an
        update goes on: both run until the service is changed."""
        service = self._services[service_id]
        [task] = [task for task in service.tasks if task.state == "running"]
        second = replace(task, id=self._next("task"), container_id=self._next("container"), created_at=self._moment())
        service.tasks.append(second)
        service.pins[second.id] = service.pins[task.id]
        service.is_doubled = True

    def mount(self, service_id: str, *sources: str) -> None:
        """Make the service mount these from its node."""
        self._services[service_id].local_mounts = sources

    def settle(self) -> None:
        """Take steps until nothing changes."""
        before = None
        while before != (before := [_seen(service) for service in self._services.values()]):
            self.step()

    def step(self) -> None:
        """Take one step of every service."""
        self._removed = [each for each in self._removed if each.task.node_id in self._cut]
        for service in self._services.values():
            service.tasks = [self._stepped(service, task) for task in service.tasks]
            self._reconcile(service)
            ended = [task for task in service.tasks if task.state in _ENDED]
            for task in ended[:-_KEPT]:
                service.tasks.remove(task)

    def _stepped(self, service: _Service, task: EngineTask) -> EngineTask:
        """Return a task after its next step."""
        node, image = service.pins[task.id], service.spec.image
        if task.state in _ENDED or (task.node_id and node in self._cut):
            return task
        if task.wanted != "running":
            return replace(task, state="shutdown")
        if service.is_held and task.state == "starting":
            return task
        if task.state == "pending":
            if node not in self.nodes or not self.nodes[node].is_up or self.nodes[node].availability != "active":
                return replace(task, error=_NO_NODE.format(len(self.nodes)))
            return replace(task, state="assigned" if node in self._cut else "preparing", node_id=node, error="")
        if task.state == "assigned":
            return replace(task, state="preparing")
        if task.state == "preparing":
            if self._is(self.absent, node, image):
                return replace(task, state="rejected", wanted="shutdown", error=f"No such image: {image}")
            return replace(task, state="starting", container_id=self._next("container"))
        if task.state == "starting" and self._is(self.unhealthy, node, image):
            error = "task: non-zero exit (1): dockerexec: unhealthy container"
            return replace(task, state="failed", wanted="shutdown", error=error)
        return replace(task, state="running")

    def _reconcile(self, service: _Service) -> None:
        """Have one task where the service is pinned; the others go once it runs, and those of a node that is down at
        once."""
        down = {node.id for node in self.nodes.values() if not node.is_up}
        self._let_go(service, [task for task in service.tasks if task.node_id in down])
        alive = [task for task in service.tasks if task.wanted == "running"]
        ours = [task for task in alive if self._fits(service, task)]
        if not service.replicas:
            service.tasks = [task for task in service.tasks if task.state not in _ENDED]
            self._let_go(service, alive)
        elif not ours:
            self._try_again(service)
        elif running := [task for task in ours if task.state == "running"]:
            if not service.is_doubled:
                self._let_go(service, [task for task in alive if task is not running[-1]])
            if service.update == "updating":
                service.update, service.version = "completed", self._number()

    def _named(self, name: str) -> _Service | None:
        return next((service for service in self._services.values() if service.spec.name == name), None)

    def _try_again(self, service: _Service) -> None:
        failed = [task for task in service.tasks if task.error and task.created_at > service.since]
        if len(failed) < _ATTEMPTS:
            task = EngineTask(
                self._next("task"), None, "pending", "running", "", None, service.deployed, self._moment()
            )
            service.tasks.append(task)
            service.pins[task.id] = service.spec.node_id
        elif service.update == "updating" and service.goes_back_to:
            self._changed(service, service.goes_back_to)
            service.deployed = service.spec.labels.get(LABEL, "")
            service.update = "rollback_completed"
        elif service.update == "updating":
            service.update, service.version = "paused", self._number()

    def _fits(self, service: _Service, task: EngineTask) -> bool:
        return service.pins[task.id] == service.spec.node_id and task.deployment_id == service.deployed

    def _let_go(self, service: _Service, tasks: list[EngineTask]) -> None:
        service.tasks = [replace(task, wanted="shutdown") if task in tasks else task for task in service.tasks]

    def _changed(self, service: _Service, spec: EngineSpec) -> None:
        service.spec, service.version, service.update, service.goes_back_to = spec, self._number(), "updating", None
        service.since, service.is_doubled = self._moment(), False

    def _is(self, pairs: set[tuple[str, str]], node: str, image: str) -> bool:
        return (node, image) in pairs or (EVERYWHERE, image) in pairs

    def _answer(self, *, manages: bool = False) -> None:
        if self.unavailable:
            raise EngineUnavailable(self.unavailable)
        if manages and self.join is None:
            raise EngineUnavailable("This node is not a swarm manager.", "docker swarm init")

    def _order(self, verb: str, subject: str) -> None:
        self._answer(manages=True)
        if self.refuses:
            raise EngineRefused(self.refuses)
        self.orders.append((verb, subject))

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _next(self, kind: str) -> str:
        return f"{kind}{self._number()}"

    def _moment(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._number())


def _seen(service: _Service) -> EngineService:
    return EngineService(
        service.id,
        service.spec.name,
        service.version,
        service.spec.image,
        dict(service.spec.labels),
        service.spec.node_id,
        service.replicas,
        service.spec.endpoint_mode,
        Capacity(service.spec.limits.cpu_cores, service.spec.limits.memory_mb),
        service.update,
        local_mounts=service.local_mounts,
        tasks=tuple(service.tasks),
        ports=tuple(service.spec.ports),
        mounts=tuple(f"{source}:{source}" for source in service.local_mounts),
    )
