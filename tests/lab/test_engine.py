"""The engine's contract on a real swarm, and the token that it tells used by a real second node."""

import subprocess
import sys
from collections.abc import Iterator

import docker
import pytest

from skyctl.domain.errors import EngineUnavailable
from skyctl.swarm import SwarmEngine
from tests.support.engine_contract import EngineContract, Ground
from tests.support.helpers import PATIENCE_SECONDS

from . import images
from .machines import Node
from .network import Network
from .swarm import Swarm


@pytest.fixture(scope="module")
def newcomer(lab: Network, manager: Node) -> Iterator[Node]:
    """A node that is in no swarm when the tests begin, and known to none when they are over."""
    with Node(lab, "newcomer") as node:
        yield node
        if node_id := node.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip():
            manager.run("docker", "node", "rm", "--force", node_id)


class TestSwarmEngine(EngineContract):
    @pytest.fixture
    def managing(self, manager: Node) -> SwarmEngine:
        return SwarmEngine(manager.engine, None)

    @pytest.fixture
    def outside(self, newcomer: Node) -> SwarmEngine:
        return SwarmEngine(newcomer.engine, None)

    @pytest.fixture
    def ground(self, swarm: Swarm) -> Ground:
        north, south = swarm.ids.values()
        return Ground(swarm.engine, north, south, images.WEB, images.ABSENT, images.ENDING, pause_seconds=0.1)


def test_the_swarms_own_address_is_told(manager: Node) -> None:
    join = SwarmEngine(manager.engine, None).worker_join()
    assert join is not None
    assert join.address == f"{manager.address}:2377"


def test_the_advertised_address_wins(manager: Node) -> None:
    join = SwarmEngine(manager.engine, "manager.example").worker_join()
    assert join is not None
    assert join.address == "manager.example:2377"


def test_a_second_node_joins_with_what_the_first_tells(manager: Node, newcomer: Node) -> None:
    join = SwarmEngine(manager.engine, None).worker_join()
    assert join is not None
    client = docker.DockerClient(newcomer.engine)
    assert client.swarm.join([join.address], join.token)
    client.close()
    nodes = manager.run("docker", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").splitlines()
    assert {"manager Leader", "newcomer"} <= {line.strip() for line in nodes}
    assert SwarmEngine(newcomer.engine, None).worker_join() is None  # a worker of the swarm manages nothing
    state = SwarmEngine(newcomer.engine, None).state()
    assert state is not None
    assert (state.swarm, state.manages) == ("active", False)


def test_a_manager_without_quorum_says_so(lab: Network) -> None:
    with Node(lab, "left") as left, Node(lab, "right") as right:
        left.run("docker", "swarm", "init", "--advertise-addr", left.address)
        token = left.run("docker", "swarm", "join-token", "--quiet", "manager").strip()
        client = docker.DockerClient(right.engine)
        assert client.swarm.join([f"{left.address}:2377"], token)
        client.close()
        left.kill()
        with pytest.raises(EngineUnavailable, match="does not tell the swarm's join token: "):
            SwarmEngine(right.engine, None).worker_join()
        with pytest.raises(EngineUnavailable, match="does not say what it is: timed out"):
            SwarmEngine(right.engine, None).state()
        right.kill()
        right.power_on()
        with pytest.raises(EngineUnavailable, match="does not tell the swarm's join token: "):
            SwarmEngine(right.engine, None).worker_join()


def test_a_manager_of_a_locked_swarm_says_so(lab: Network) -> None:
    with Node(lab, "locked") as node:
        node.run("docker", "swarm", "init", "--autolock", "--advertise-addr", node.address)
        node.kill()
        node.power_on()
        engine = SwarmEngine(node.engine, None)
        with pytest.raises(EngineUnavailable, match=r"does not tell the swarm's join token: .*locked") as caught:
            engine.worker_join()
        assert caught.value.hint == "unlock the swarm there: docker swarm unlock"
        with pytest.raises(EngineUnavailable, match=r"answers with a refusal: .*unlock"):
            engine.observe()


def test_an_engine_that_was_switched_off_is_said(lab: Network) -> None:
    with Node(lab, "off") as node:
        engine = SwarmEngine(node.engine, None)
        assert engine.worker_join() is None
        node.kill()
        with pytest.raises(EngineUnavailable, match=r"does not answer: .*Connection refused"):
            engine.worker_join()
        with pytest.raises(EngineUnavailable, match=r"does not answer: .*Connection refused"):
            engine.state()


@pytest.mark.parametrize("place", ["without any engine", "with the manager's"])
def test_the_local_engine_is_asked_when_none_is_configured(manager: Node, place: str) -> None:
    program = (
        "from skyctl.swarm import SwarmEngine; engine = SwarmEngine(None, None); "
        "join, state = engine.worker_join(), engine.state(); print(join and join.address, state and state.manages)"
    )
    if place == "with the manager's":
        assert manager.run(sys.executable, "-c", program).strip() == f"{manager.address}:2377 True"
    else:
        hidden = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs tmpfs /run; exec "$@"', "sh"]
        done = subprocess.run(
            [*hidden, sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert (done.stdout, done.stderr) == ("None None\n", "")
