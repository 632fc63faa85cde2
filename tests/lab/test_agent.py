"""The real agent on a real node: what it says of containers and of the swarm follows what the engine does."""

import json
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from . import images
from .commands import CommandFailed
from .machines import Node
from .network import Network
from .peer import Peer, Told

TOKEN = "lab-token"


@pytest.fixture(scope="module")
def node(lab: Network) -> Iterator[Node]:
    """A node in no swarm, with the lab's image."""
    with Node(lab, "reporter") as node:
        node.run("docker", "import", "-", images.IMAGE, stdin=images.busybox())
        yield node


@pytest.fixture
def agent(node: Node, peer: Peer) -> Iterator[Peer]:
    """What the agent, which runs on the node, tells its manager."""
    config = node.folder / "config.json"
    config.touch(0o600)
    config.write_text(
        json.dumps(
            {
                "apiUrl": peer.url,
                "authToken": TOKEN,
                "workerId": str(uuid4()),
                "heartbeatInterval": 0.2,
                "insecure": True,
            }
        )
    )
    process = node.spawn(sys.executable, "-m", "skyagent", "--config", str(config))
    try:
        yield peer
    finally:
        process.kill()
        process.wait()


def test_the_container_count_follows_the_engine(node: Node, agent: Peer) -> None:
    def beats_with(containers: int) -> Told:
        return agent.wait_for(lambda told: not told.registers and told.body["containerCount"] == containers)

    beats_with(0)
    started = node.run("docker", "run", "--detach", images.IMAGE, "sleep", "1000").strip()
    assert beats_with(1).token == TOKEN
    agent.forget()
    node.run("docker", "rm", "--force", started)
    beats_with(0)


def test_the_swarm_node_id_is_told_once_the_node_is_in_a_swarm(node: Node, agent: Peer) -> None:
    first = agent.wait_for(lambda told: told.registers)
    assert first.body["hostname"] == node.name
    assert first.body["ipAddress"] == node.address
    assert not first.body["metadata"].get("swarmNodeId")
    node.run("docker", "swarm", "init", "--advertise-addr", node.address)
    node_id = node.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip()
    told = agent.wait_for(lambda told: told.registers and told.body["metadata"].get("swarmNodeId"))
    assert told.body["metadata"]["swarmNodeId"] == node_id


def test_a_cut_off_agent_reports_again_once_the_cable_is_back(node: Node, agent: Peer) -> None:
    agent.wait_for(lambda told: not told.registers)
    reach = (sys.executable, "-c", f"import socket; socket.create_connection(('{Network.gateway}', {agent.port}), 5)")
    node.run(*reach)
    node.cut()
    with pytest.raises(CommandFailed, match="Network is unreachable"):
        node.run(*reach)
    agent.forget()
    node.heal()
    agent.wait_for(lambda told: not told.registers)
