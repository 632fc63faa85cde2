"""Services that a swarm in memory places by itself: of several containers, or one on each node."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

from skyctl.domain.engine import Document, EngineNode, EngineService, EngineTask
from skyctl.rules import owner_specs
from skyctl.swarm import readings, specs
from tests.support.fake_service import FakeService

ENDED = {"complete", "shutdown", "failed", "rejected", "orphaned"}
NO_NODE = "no suitable node (scheduling constraints not satisfied on {} nodes)"
_STEPS = {"pending": "preparing", "assigned": "preparing", "preparing": "starting"}


@dataclass
class World:
    """What its tasks need of the swarm: the nodes, those that are cut off, new names and times; `absent` tells of a
    node and an image whether that cannot be started there, `unhealthy` whether it never becomes healthy."""

    nodes: Mapping[str, EngineNode]
    cut: set[str]
    next: Callable[[str], str]
    moment: Callable[[], datetime]
    absent: Callable[[str, str], bool]
    unhealthy: Callable[[str, str], bool]


@dataclass
class Placed:
    """A service by its document; `makes` counts the changes that make its containers anew."""

    id: str
    document: Document
    version: int
    former: Document | None = None
    update: str = ""
    makes: int = 0
    tasks: list[EngineTask] = field(default_factory=list)
    made_as: dict[str, tuple[int, int]] = field(default_factory=dict)  # of each task: the version, and the make

    @property
    def name(self) -> str:
        return str(self.document["Name"])

    @property
    def labels(self) -> Mapping[str, str]:
        return self.document.get("Labels") or {}

    @classmethod
    def of(cls, service: FakeService) -> Self:
        """A service that was pinned so far, with its containers."""
        placed = cls(service.id, service.document, service.version, service.former, service.update)
        placed.tasks = list(service.tasks)
        placed.made_as = {task.id: (service.version, 0) for task in service.tasks}
        return placed

    def seen(self) -> EngineService:
        shown = {"ID": self.id, "Version": {"Index": self.version}, "Spec": self.document}
        status = {"UpdateStatus": {"State": self.update}} if self.update else {}
        return readings.service({**shown, **status}, tuple(self.tasks))

    def change(self, document: Document, version: int) -> None:
        """Write another specification."""
        self.makes += _what_runs(self.document) != _what_runs(document)
        self.former, self.document, self.version, self.update = self.document, document, version, "updating"

    def step(self, world: World) -> bool:
        """Take one step; whether an update ended by it."""
        for number, task in enumerate(self.tasks):  # each sees where the one before it went
            self.tasks[number] = self._stepped(task, world)
        self._reconcile(world)
        ended = [task for task in self.tasks if task.state in ENDED]
        for task in ended[:-5]:
            self.tasks.remove(task)
        alive = [task for task in self.tasks if task.wanted == "running"]
        is_over = self.update == "updating" and all(task.state == "running" and self._is_good(task) for task in alive)
        if is_over:
            self.update = "completed"
        return is_over

    def _stepped(self, task: EngineTask, world: World) -> EngineTask:
        if task.state in ENDED or (task.node_id in world.cut):
            return task
        if task.wanted != "running":
            return replace(task, state="shutdown")
        if task.state == "pending":
            node_id = self._choose(world)
            if node_id is None:
                return replace(task, error=NO_NODE.format(len(world.nodes)))
            return replace(task, state="preparing", node_id=node_id, error="")
        image = self._container()["Image"]
        if task.state == "preparing" and world.absent(task.node_id or "", image):
            return replace(task, state="rejected", wanted="shutdown", error=f"No such image: {image}")
        if task.state == "starting" and world.unhealthy(task.node_id or "", image):
            return replace(task, state="failed", wanted="shutdown", error="task: non-zero exit (1): unhealthy")
        container = task.container_id or world.next("container")
        return replace(task, state=_STEPS.get(task.state, "running"), container_id=container)

    def _reconcile(self, world: World) -> None:
        for task in self.tasks:
            node = world.nodes.get(task.node_id or "")
            if task.wanted == "running" and node and (not node.is_up or node.availability == "drain"):
                self._let_go(task)
        alive = [task for task in self.tasks if task.wanted == "running"]
        good = [task for task in alive if self._is_good(task)]
        dirty = [task for task in alive if task not in good]
        replicas = replicas_of(self.document)
        if "Global" in self.document["Mode"]:
            for task in dirty:
                self._let_go(task)
            held = {task.node_id for task in good}
            self._make([node for node in self._open(world) if node not in held], world)
            return
        is_stop_first = (self.document.get("UpdateConfig") or {}).get("Order", "stop-first") == "stop-first"
        running = sum(task.state == "running" for task in good)
        surplus = max(0, len(dirty) + (len(good) if is_stop_first else running) - replicas)
        for task in dirty if is_stop_first else dirty[:surplus]:
            self._let_go(task)
        for task in sorted(good, key=lambda task: task.state == "running")[: max(0, len(good) - replicas)]:
            self._let_go(task)
        lost = {node.id for node in world.nodes.values() if not node.is_up}  # nothing waits for what is there to stop
        stopping = [task for task in self.tasks if task.wanted != "running" and task.state not in ENDED]
        waits = is_stop_first and any(task.node_id not in lost for task in stopping)
        missing = 0 if waits or self.update == "paused" else replicas - len(good)
        if self.update == "updating" and any(self._failed_since(task) for task in self.tasks):
            self.update, missing = "paused", 0
        self._make([None] * max(0, missing), world)

    def _failed_since(self, task: EngineTask) -> bool:
        return task.state in ("failed", "rejected") and self.made_as[task.id][0] == self.version

    def _make(self, node_ids: list[str | None], world: World) -> None:
        for node_id in node_ids:
            state = "pending" if node_id is None else "assigned"
            label = (self._container().get("Labels") or {}).get(specs.DEPLOYMENT_LABEL, "")
            task = EngineTask(world.next("task"), node_id, state, "running", "", None, label, world.moment())
            self.made_as[task.id] = (self.version, self.makes)
            self.tasks.append(task)

    def _let_go(self, task: EngineTask) -> None:
        gone = replace(task, wanted="shutdown", state="shutdown" if task.node_id is None else task.state)
        self.tasks[self.tasks.index(task)] = gone

    def _is_good(self, task: EngineTask) -> bool:
        off, pin = owner_specs.excluded(self.document), specs.pinned_to(self.document)
        is_allowed = task.node_id is None or (task.node_id not in off and pin in (None, task.node_id))
        return is_allowed and self.made_as[task.id][1] == self.makes

    def _choose(self, world: World) -> str | None:
        counts = Counter(task.node_id for task in self.tasks if task.wanted == "running")
        most = (self.document["TaskTemplate"].get("Placement") or {}).get("MaxReplicas") or len(self.tasks)
        nodes = [node for node in self._open(world) if counts[node] < most]
        return min(nodes, key=lambda node: (counts[node], node), default=None)

    def _open(self, world: World) -> list[str]:
        """The nodes that may take a container of it."""
        off, pin = owner_specs.excluded(self.document), specs.pinned_to(self.document)
        return [
            node.id
            for node in world.nodes.values()
            if node.is_up and node.availability == "active" and node.id not in off and pin in (None, node.id)
        ]

    def _container(self) -> Document:
        container: Document = self.document["TaskTemplate"]["ContainerSpec"]
        return container


def replicated(name: str, image: str = "app:1", replicas: int = 1, **more: object) -> Document:
    """The document of a service of so many containers, as its owner writes it."""
    return {"Name": name, "TaskTemplate": _template(image), "Mode": {"Replicated": {"Replicas": replicas}}, **more}


def global_(name: str, image: str = "app:1") -> Document:
    """The document of a service that runs on every node."""
    return {"Name": name, "TaskTemplate": _template(image), "Mode": {"Global": {}}}


def _what_runs(document: Document) -> Document:
    """What of a service makes its containers anew where it changes."""
    return {name: value for name, value in document["TaskTemplate"].items() if name != "Placement"}


def replicas_of(document: Document) -> int:
    """How many containers such a service is to have."""
    return int((document["Mode"].get("Replicated") or {}).get("Replicas", 1))


def _template(image: str) -> Document:
    return {"ContainerSpec": {"Image": image}, "Placement": {}}
