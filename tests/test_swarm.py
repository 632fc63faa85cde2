"""The engine where no swarm is needed: the fake, addresses, and an engine that does not answer."""

import socket
from pathlib import Path

import pytest

from skyctl.errors import EngineUnavailable
from skyctl.model import SwarmJoin
from skyctl.swarm import SwarmEngine, with_port
from tests.engine_contract import EngineContract, Ground
from tests.fake_engine import EVERYWHERE, FakeEngine


class TestFakeEngine(EngineContract):
    @pytest.fixture
    def managing(self) -> FakeEngine:
        return FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))

    @pytest.fixture
    def outside(self) -> FakeEngine:
        return FakeEngine(None)

    @pytest.fixture
    def ground(self, managing: FakeEngine) -> Ground:
        first, second = managing.add_node("first"), managing.add_node("second")
        managing.absent.add((EVERYWHERE, "nobody/has:it"))
        return Ground(managing, first, second, image="everybody/has:it", absent="nobody/has:it")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("10.0.0.1", "10.0.0.1:2377"),
        ("10.0.0.1:2400", "10.0.0.1:2400"),
        ("manager.example", "manager.example:2377"),
        ("manager.example:2400", "manager.example:2400"),
        ("fd00::1", "[fd00::1]:2377"),
        ("[fd00::1]", "[fd00::1]:2377"),
        ("[fd00::1]:2400", "[fd00::1]:2400"),
    ],
)
def test_an_address_gets_the_swarms_port_only_where_it_has_none(given: str, address: str) -> None:
    assert with_port(given) == address
    assert with_port(address) == address


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("unix:///nowhere/docker.sock", "No such file or directory"),
        ("tcp://127.0.0.1:9", "Connection refused"),
        ("nonsense://127.0.0.1", "Invalid bind address protocol: nonsense://127.0.0.1"),
    ],
)
def test_a_configured_engine_that_is_not_there_is_said_in_one_line(host: str, reason: str) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        SwarmEngine(host, None).worker_join()
    assert caught.value.message.startswith(f"the Docker engine at {host} does not answer: ")
    assert caught.value.message.endswith(reason)
    assert "\n" not in caught.value.message
    assert f"docker --host {host} info" in caught.value.hint


def test_an_engine_that_hangs_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "hung.sock"))
        listener.listen()
        with pytest.raises(EngineUnavailable, match="timed out"):
            SwarmEngine(f"unix://{tmp_path}/hung.sock", None).worker_join()
