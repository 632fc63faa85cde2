"""A swarm in memory that does what a real one does, one step with every `observe`."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import (
    Document,
    EngineNode,
    EngineService,
    EngineSpec,
    EngineState,
    EngineTask,
    Mount,
    NodeTask,
    NodeUse,
    Observation,
    Platform,
    Plugin,
    RestartPolicy,
    ServiceDocument,
    ServiceVersion,
    SwarmJoin,
)
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable
from skyctl.domain.logs import LogLine, LogOptions
from skyctl.rules import fit
from skyctl.swarm import specs
from tests.support.fake_placed import ENDED, NO_NODE, Placed, World, replicas_of
from tests.support.fake_service import EPOCH, FakeService

EVERYWHERE = "*"
LINUX = Platform("linux", "x86_64")
PLUGINS = frozenset({Plugin("Network", "overlay"), Plugin("Volume", "local"), Plugin("Log", "json-file")})
LABEL = "skypanel.deployment.id"
_ATTEMPTS = 4  # after which an update has failed; the tries go on
_KEPT = 5
_BY_ITSELF = {"complete", "failed", "rejected"}


@dataclass
class FakeEngine:
    """An engine whose swarm is `join`; None manages no swarm. Its nodes are added by `add_node`; `own_node` is its own.

    A task takes a step with each `observe`, or all that it can by `settle`. `absent` and `unhealthy` hold pairs of a
    node (or EVERYWHERE) and an image: such an image cannot be started there, or never becomes healthy; `ending` those
    whose containers end as soon as they run, with this exit code. `digests` are those of the images that registries
    have, `policies` the restart policies of images that have another one than ours. While `unavailable` is set every
    call fails, while `refuses` is set every order: with that text. `orders` are those that it was given, in order.
    """

    join: SwarmJoin | None
    absent: set[tuple[str, str]] = field(default_factory=set)
    unhealthy: set[tuple[str, str]] = field(default_factory=set)
    ending: dict[tuple[str, str], int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    policies: dict[str, RestartPolicy] = field(default_factory=dict)
    unavailable: str = ""
    refuses: str = ""
    orders: list[tuple[str, str]] = field(default_factory=list)
    nodes: dict[str, EngineNode] = field(default_factory=dict)
    own_node: str = ""
    networks: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _services: dict[str, FakeService] = field(default_factory=dict)
    _placed: dict[str, Placed] = field(default_factory=dict)
    _removed: list[NodeTask] = field(default_factory=list)
    _cut: set[str] = field(default_factory=set)
    _uses: dict[str, NodeUse] = field(default_factory=dict)
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
        seen = [one for one in self._shown() if service_ids is None or one.id in service_ids]
        return Observation(dict(self.nodes), {service.id: service for service in seen})

    def tasks_on(self, node_ids: Collection[str]) -> list[NodeTask]:
        self._answer(manages=True)
        self.step()
        of_services = [(each.id, each.spec.name, task) for each in self._services.values() for task in each.tasks]
        of_services += [(each.id, each.name, task) for each in self._placed.values() for task in each.tasks]
        return [NodeTask(*each) for each in [*of_services, *self._removed] if each[2].node_id in node_ids]

    def find(self, name: str) -> ServiceVersion | None:
        self._answer(manages=True)
        found = self._named(name)
        return ServiceVersion(found.id, found.version, dict(found.labels)) if found else None

    def digest(self, image: str) -> str:
        self._answer()
        if image not in self.digests:
            raise EngineRefused(f"no registry has {image}")
        return self.digests[image]

    def deploy(self, spec: EngineSpec, version: int | None) -> str:
        self._order("deploy", spec.name)
        self.networks.setdefault(spec.network, dict(spec.network_labels))
        found = self._named(spec.name)
        if (found.version if found else None) != version:
            raise EngineConflict(f"the service {spec.name} is not of version {version}")
        document = specs.service(spec, "network")
        if isinstance(found, Placed) or (found is None and spec.node_id is None):
            return self._deploy_placed(found, document)
        if found and spec.node_id is None:
            placed = self._placed[found.id] = Placed.of(self._services.pop(found.id))
            return self._deploy_placed(placed, document)
        if found is None:
            label = spec.labels.get(LABEL, "")
            found = FakeService(self._next("service"), spec, self._number(), label, document=document)
            self._services[found.id] = found
        elif (found.spec, found.replicas) != (spec, 1):
            before = found.spec if found.replicas else None
            found.former, found.document = found.document, document
            self._changed(found, spec)
            found.deployed, found.replicas, found.goes_back_to = spec.labels.get(LABEL, ""), 1, before
        return found.id

    def move(
        self, service_id: str, version: int, node_id: str, labels: Mapping[str, str], order: str = "start-first"
    ) -> None:
        self._order("move", service_id)
        found = self._of_version(service_id, version)
        self._write(service_id, specs.moved(found.document, node_id, labels, order))
        if isinstance(found, FakeService):
            found.is_moved = True

    def read(self, service_id: str) -> ServiceDocument | None:
        self._answer(manages=True)
        found = self._services.get(service_id) or self._placed.get(service_id)
        return ServiceDocument(found.version, found.document, found.former) if found else None

    def write(self, service_id: str, version: int, spec: Document) -> None:
        self._order("write", service_id)
        self._of_version(service_id, version)
        self._write(service_id, specs.with_placement(spec))

    def logs(self, service_id: str, options: LogOptions) -> Iterator[LogLine]:
        """What its containers echo."""
        self._answer(manages=True)
        if (found := self._everything().get(service_id)) is None:
            raise EngineRefused(f"service {service_id} not found")
        command = (found.document["TaskTemplate"]["ContainerSpec"].get("Args") or [""])[-1]
        echoed = [each.strip().removeprefix("echo ") for each in command.split(";") if each.strip().startswith("echo ")]
        for task in found.tasks:
            if task.container_id:
                for text in echoed[-options.tail :] if options.tail is not None else echoed:
                    yield LogLine(task.created_at.isoformat(), task.id, task.node_id or "", text)

    def stop(self, service_id: str) -> None:
        self._order("stop", service_id)
        if (service := self._services.get(service_id)) and service.replicas:
            self._changed(service, service.spec)
            service.replicas = 0
        if placed := self._placed.get(service_id):
            placed.change(specs.without_container(placed.document), self._number())

    def remove(self, service_id: str) -> None:
        self._order("remove", service_id)
        gone, placed = self._services.pop(service_id, None), self._placed.pop(service_id, None)
        if removed := gone or placed:
            left = [task for task in removed.tasks if task.state not in ENDED]
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
            service.tasks = [_lost(task, node_id) for task in service.tasks]
        for placed in self._placed.values():
            placed.tasks = [_lost(task, node_id) for task in placed.tasks]

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
        node = EngineNode(
            self._next("node"), hostname, True, "active", address, is_manager, has, platform=LINUX, plugins=PLUGINS
        )
        self.nodes[node.id] = node
        return node.id

    def place(self, document: Document) -> str:
        """Create a service that the swarm places by itself, as its owner does; return its id once it runs."""
        created = Placed(self._next("service"), document, self._number())
        self._placed[created.id] = created
        self.settle()
        return created.id

    def change(self, service_id: str, **values: object) -> None:
        """Change parts of the specification of such a service, as its owner does."""
        service = self._placed[service_id]
        service.change({**service.document, **values}, self._number())

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

    def release(self, service_id: str) -> None:
        """Let them become healthy."""
        self._services[service_id].is_held = False

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

    def end(self, service_id: str, exit_code: int) -> None:
        """End the containers of the service that run, by themselves."""
        service = self._services[service_id]
        service.tasks = [_over(task, exit_code) if task.state == "running" else task for task in service.tasks]

    def mount(self, service_id: str, *mounts: str | Mount) -> None:
        """Make the service mount these, or these folders of its node."""
        self._services[service_id].mounts = tuple(
            Mount("bind", mount, mount) if isinstance(mount, str) else mount for mount in mounts
        )

    def describe(self, node_id: str, **facts: Any) -> None:
        """Let a node be one of which the engine says this."""
        self.nodes[node_id] = replace(self.nodes[node_id], **facts)

    def require(self, service_id: str, *constraints: str, **asks: Any) -> None:
        """Let the service ask this of its node, beside its pin."""
        self._services[service_id].asks = {"constraints": constraints, **asks}

    def settle(self) -> None:
        """Take steps until nothing changes, or all comes round: a container that keeps ending does so for ever."""
        pictures: list[object] = []
        while (picture := [_picture(service) for service in self._shown()]) not in pictures:
            pictures.append(picture)
            self.step()

    def step(self) -> None:
        """Take one step of every service."""
        seen = {service.id: service.seen() for service in self._services.values()}
        self._uses = fit.node_uses(Observation(self.nodes, seen))
        self._removed = [each for each in self._removed if each.task.node_id in self._cut]
        for service in self._services.values():
            service.tasks = [self._stepped(service, task) for task in service.tasks]
            self._reconcile(service)
            ended = [task for task in service.tasks if task.state in ENDED]
            for task in ended[:-_KEPT]:
                service.tasks.remove(task)
        for placed in self._placed.values():
            if placed.step(self._world()):
                placed.version = self._number()

    def _stepped(self, service: FakeService, task: EngineTask) -> EngineTask:
        """Return a task after its next step."""
        node, image = service.pins[task.id], service.spec.image
        if task.state in ENDED or (task.node_id and node in self._cut):
            return task
        if task.wanted != "running":
            return replace(task, state="shutdown")
        if service.is_held and task.state == "starting":
            return task
        if task.state == "pending":
            if refusal := self._refusal(service, node):
                return replace(task, error=refusal)
            self._uses[node] = fit.with_container(self._uses[node], service.requirements(), service.id)
            return replace(task, state="assigned" if node in self._cut else "preparing", node_id=node, error="")
        if task.state == "assigned":
            return replace(task, state="preparing")
        if task.state == "preparing":
            if self._is(self.absent, node, image):
                return replace(task, state="rejected", wanted="shutdown", error=f"No such image: {image}")
            return replace(task, state="starting", container_id=self._next("container"))
        if task.state == "starting" and self._is(self.unhealthy, node, image):
            error = "task: non-zero exit (1): dockerexec: unhealthy container"
            return replace(task, state="failed", wanted="shutdown", error=error, exit_code=1)
        if task.state == "running" and (pair := self._ends(node, image)):
            return _over(task, self.ending[pair])
        if task.state == "running":
            return task
        return replace(task, state="running", host_ports=service.requirements().host_ports)

    def _refusal(self, service: FakeService, node_id: str) -> str:
        """Why no node takes a task that was made for this one; empty where it does."""
        if node_id not in self.nodes:
            return NO_NODE.format(len(self.nodes))
        asks = replace(service.requirements(), constraints=service.asks.get("constraints", ()))
        why = fit.why_not(asks, service.id, self.nodes[node_id], self._uses[node_id])
        return f"no suitable node ({why.partition(':')[0]} on 1 node)" if why else ""

    def _reconcile(self, service: FakeService) -> None:
        """Have one task where the service is pinned; the others go once it runs, and those of a node that is down at
        once."""
        down = {node.id for node in self.nodes.values() if not node.is_up}
        self._let_go(service, [task for task in service.tasks if task.node_id in down])
        alive = [task for task in service.tasks if task.wanted == "running"]
        ours = [task for task in alive if self._fits(service, task)]
        if not service.replicas:
            service.tasks = [task for task in service.tasks if task.state not in ENDED]
            self._let_go(service, alive)
        elif not ours and service.stops_first() and any(task.state not in ENDED for task in service.tasks):
            self._let_go(service, alive)
        elif not ours:
            self._try_again(service)
        elif running := [task for task in ours if task.state == "running"]:
            if not service.is_doubled:
                self._let_go(service, [task for task in alive if task is not running[-1]])
            # the swarm watches a new container for some seconds before it takes the update for completed
            if service.update == "updating" and not self._ends(service.spec.node_id or "", service.spec.image):
                service.update, service.version = "completed", self._number()

    def _rewrite(self, service: FakeService, document: Document) -> None:
        """Follow a document that was written: what is not of the update's order or the like makes the swarm act."""
        if document == service.document:
            return
        service.former, service.document = service.document, document
        node_id, labels = specs.pinned_to(document) or service.spec.node_id, document.get("Labels") or {}
        image = document["TaskTemplate"]["ContainerSpec"]["Image"]
        made_as = document["TaskTemplate"]["ContainerSpec"].get("Labels") or {}
        service.deployed = made_as.get(LABEL, service.deployed)
        wanted = replace(service.spec, node_id=node_id, labels=labels, image=image)
        if wanted != service.spec:
            self._changed(service, wanted)
        else:
            service.version = self._number()

    def _shown(self) -> list[EngineService]:
        return [
            *(self._seen(service) for service in self._services.values()),
            *(placed.seen() for placed in self._placed.values()),
        ]

    def _seen(self, service: FakeService) -> EngineService:
        return replace(service.seen(), restarts=self.policies.get(service.spec.image, RestartPolicy()))

    def _world(self) -> World:
        def absent(node_id: str, image: str) -> bool:
            return self._is(self.absent, node_id, image)

        def unhealthy(node_id: str, image: str) -> bool:
            return self._is(self.unhealthy, node_id, image)

        return World(self.nodes, self._cut, self._next, self._moment, absent, unhealthy)

    def _named(self, name: str) -> FakeService | Placed | None:
        return next((service for service in self._everything().values() if service.name == name), None)

    def _everything(self) -> dict[str, FakeService | Placed]:
        return {**self._services, **self._placed}

    def _of_version(self, service_id: str, version: int) -> FakeService | Placed:
        found = self._everything().get(service_id)
        if found is None or found.version != version:
            raise EngineConflict(f"the service {service_id} is not of version {version}")
        return found

    def _deploy_placed(self, found: Placed | None, document: Document) -> str:
        if found is None:
            found = Placed(self._next("service"), document, self._number())
            self._placed[found.id] = found
        elif document != found.document:
            found.change(document, self._number())
        return found.id

    def _write(self, service_id: str, document: Document) -> None:
        """Follow a document that was written; what is not pinned any more is placed by the swarm from now on."""
        service = self._services.get(service_id)
        if service and (specs.pinned_to(document) is None or replicas_of(document) != 1):
            self._placed[service_id] = Placed.of(self._services.pop(service_id))
        if placed := self._placed.get(service_id):
            if document != placed.document:
                placed.change(document, self._number())
        elif service:
            self._rewrite(service, document)

    def _try_again(self, service: FakeService) -> None:
        over = [task for task in service.tasks if task.state in _BY_ITSELF and task.created_at > service.since]
        if len(over) >= _ATTEMPTS and service.update == "updating":
            if service.goes_back_to:
                self._go_back(service, service.goes_back_to)
                return
            service.update, service.version = "paused", self._number()
        made, reserved = self._moment(), service.requirements().reserved
        task = EngineTask(self._next("task"), None, "pending", "running", "", None, service.deployed, made, reserved)
        service.tasks.append(task)
        service.pins[task.id] = service.spec.node_id or ""

    def _go_back(self, service: FakeService, spec: EngineSpec) -> None:
        self._changed(service, spec)
        service.deployed = service.spec.labels.get(LABEL, "")
        service.update = "rollback_completed"

    def _fits(self, service: FakeService, task: EngineTask) -> bool:
        return service.pins[task.id] == service.spec.node_id and task.deployment_id == service.deployed

    def _let_go(self, service: FakeService, tasks: list[EngineTask]) -> None:
        service.tasks = [replace(task, wanted="shutdown") if task in tasks else task for task in service.tasks]

    def _changed(self, service: FakeService, spec: EngineSpec) -> None:
        service.spec, service.version, service.update, service.goes_back_to = spec, self._number(), "updating", None
        service.since, service.is_doubled = self._moment(), False
        service.is_moved = False

    def _ends(self, node: str, image: str) -> tuple[str, str] | None:
        return next((pair for pair in ((node, image), (EVERYWHERE, image)) if pair in self.ending), None)

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
        return EPOCH + timedelta(seconds=self._number())


def _over(task: EngineTask, exit_code: int) -> EngineTask:
    """A task whose container has ended by itself."""
    state, error = ("failed", f"task: non-zero exit ({exit_code})") if exit_code else ("complete", "")
    return replace(task, state=state, wanted="shutdown", error=error, exit_code=exit_code)


def _picture(service: EngineService) -> object:
    """A service but for what no two containers have in common."""
    tasks = [(task.node_id, task.state, task.wanted, task.error, task.deployment_id) for task in service.tasks]
    return service.id, service.node_id, service.image, service.labels, service.update, service.replicas, tasks


def _lost(task: EngineTask, node_id: str) -> EngineTask:
    """A task once that node has been removed."""
    if task.node_id != node_id or task.state in ENDED:
        return task
    return replace(task, state="orphaned", wanted="shutdown", container_id=None)
