"""A swarm of the lab: a manager, its workers, and the lab's images on every node."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial

from skyctl.domain.errors import EngineUnavailable
from skyctl.swarm import SwarmEngine
from tests.support.helpers import eventually

from . import images
from .commands import CommandFailed
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
        """Remove every service and container, put back what a failed test has cut off or frozen, and wait until the
        swarm hears every node."""
        for node in (self.manager, *self.workers):
            node.heal()
            node.thaw()
        for service_id in self.engine.observe().services:
            self.engine.remove(service_id)
        for node in self.workers:
            eventually(partial(_is_bare, node))
        for node_id in self.engine.observe(()).nodes:
            self.engine.set_availability(node_id, "active")
        eventually(self._hears_all)

    def picture(self) -> str:
        """What the manager and each node's engine say that they run, for whoever reads why a test has failed."""
        try:
            ids = list(self.engine.observe().services)
        except EngineUnavailable as error:
            return error.message
        update = "{{.Spec.Name}} {{.Version.Index}} {{json .Spec.Mode}} {{json .UpdateStatus}} {{json .Spec.Labels}}"
        asked: list[tuple[Node, tuple[str, ...]]] = [(self.manager, ("docker", "node", "ls"))]
        if ids:
            asked += [
                (self.manager, ("docker", "service", "inspect", "--format", update, *ids)),
                (self.manager, ("docker", "service", "ps", "--no-trunc", *ids)),
            ]
        asked += [(node, ("docker", "ps", "--no-trunc")) for node in self.workers]
        return "\n".join(f"{node.name}: {' '.join(argv)}\n{_answer(node, *argv)}" for node, argv in asked)

    def _hears_all(self) -> bool:
        nodes = self.engine.observe(()).nodes
        return all(nodes[node_id].is_up for node_id in self.ids.values())


def release(node: Node, count: int) -> None:
    """Make this many containers of the image HELD on a node healthy, once they are there."""
    eventually(lambda: len(_containers(node)) == count)
    for container in _containers(node):
        node.run("docker", "exec", container, "sh", "-c", f"echo >{images.READY}")


def _is_bare(node: Node) -> bool:
    """Remove what containers a node has, unless its engine does so at this moment; whether it has none by now."""
    if containers := node.run("docker", "ps", "--all", "--quiet").split():
        with suppress(CommandFailed):
            node.run("docker", "rm", "--force", *containers)
    return not node.run("docker", "ps", "--all", "--quiet").split()


def _containers(node: Node) -> list[str]:
    return node.run("docker", "ps", "--quiet").split()


def _answer(node: Node, *argv: str) -> str:
    try:
        return node.run(*argv, timeout_seconds=10)
    except (CommandFailed, subprocess.TimeoutExpired) as error:
        return str(error)


def _load(node: Node) -> None:
    for image, options in images.variants().items():
        node.run("docker", "import", *options, "-", image, stdin=images.busybox())
