"""A swarm of the lab: a manager, its workers, and the lab's images on every node."""

from collections.abc import Sequence
from functools import cached_property

from skyctl.swarm import SwarmEngine
from tests.support.helpers import eventually

from . import images
from .machines import Node


class Swarm:
    """A manager and the workers that joined it; `ids` are those of their nodes. Nodes are left to whoever booted
    them."""

    def __init__(self, manager: Node, workers: Sequence[Node]) -> None:
        self.manager = manager
        self.workers = tuple(workers)
        _load(manager)
        self.ids = {worker.name: self.join(worker) for worker in workers}

    def add(self, node: Node) -> None:
        """Let one more node join, and be one of its workers."""
        self.ids[node.name] = self.join(node)
        self.workers = (*self.workers, node)

    def forget(self, node: Node) -> None:
        """Remove a worker's node from the swarm; it is left to whoever booted it."""
        self.engine.remove_node(self.ids.pop(node.name))
        self.workers = tuple(each for each in self.workers if each is not node)

    def join(self, node: Node) -> str:
        """Let a node join as a worker, with the images; its id."""
        token = self.manager.run("docker", "swarm", "join-token", "--quiet", "worker").strip()
        node.run("docker", "swarm", "join", "--token", token, f"{self.manager.address}:2377")
        _load(node)
        return node.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip()

    @cached_property
    def engine(self) -> SwarmEngine:
        """Its engine. The lab's kernel may have no IPsec, so networks are not encrypted."""
        return SwarmEngine(self.manager.engine, None, encrypts=False)

    def clear(self) -> None:
        """Remove every service and container, and wait until the swarm hears every node."""
        for service_id in self.engine.observe().services:
            self.engine.remove(service_id)
        for node in self.workers:
            if containers := node.run("docker", "ps", "--all", "--quiet").split():
                node.run("docker", "rm", "--force", *containers)
        for node_id in self.ids.values():
            self.engine.set_availability(node_id, "active")
        eventually(self._hears_all)

    def _hears_all(self) -> bool:
        nodes = self.engine.observe(()).nodes
        return all(nodes[node_id].is_up for node_id in self.ids.values())


def _load(node: Node) -> None:
    for image, options in images.variants().items():
        node.run("docker", "import", *options, "-", image, stdin=images.busybox())
