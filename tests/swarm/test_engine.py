"""The engine where no swarm is needed: the fake, addresses, and an engine that does not answer."""

import socket
from pathlib import Path

import pytest

from skyctl.domain.engine import EngineService, SwarmJoin
from skyctl.domain.errors import EngineRefused, EngineUnavailable
from skyctl.swarm import SwarmEngine, with_port
from tests.support.engine_contract import EngineContract, Ground, running
from tests.support.fake_engine import EVERYWHERE, FakeEngine


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
        managing.own_node = managing.add_node("head", is_manager=True)
        managing.absent.add((EVERYWHERE, "nobody/has:it"))
        managing.ending |= {(EVERYWHERE, "ends:0"): 0, (EVERYWHERE, "ends:3"): 3}
        return Ground(managing, first, second, "everybody/has:it", "nobody/has:it", {0: "ends:0", 3: "ends:3"})


class TestFakeTrouble:
    """What only a fake does on demand; what a real swarm does then is in the lab's tests."""

    @pytest.fixture
    def fake(self) -> FakeEngine:
        return FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))

    @pytest.fixture
    def ground(self, fake: FakeEngine) -> Ground:
        return Ground(fake, fake.add_node("first"), fake.add_node("second"), image="a:1", absent="b:1")

    @pytest.fixture
    def before(self, ground: Ground) -> EngineService:
        return ground.quiet(ground.deploy(ground.spec()))

    def test_an_orphaned_container_runs_on_unwanted_until_its_node_is_back(
        self, fake: FakeEngine, ground: Ground, before: EngineService
    ) -> None:
        fake.lose(ground.first)
        fake.settle()
        assert [(task.state, task.wanted) for task in ground.seen(before.id).tasks] == [
            ("running", "shutdown"),
            ("pending", "running"),
        ]
        fake.move(before.id, ground.seen(before.id).version, ground.second, {})
        fake.settle()
        orphan, _, new = ground.seen(before.id).tasks
        assert (orphan.state, orphan.wanted, new.node_id, new.state) == (
            "running",
            "shutdown",
            ground.second,
            "running",
        )
        fake.heal(ground.first)
        assert [task.state for task in ground.quiet(before.id).tasks] == ["shutdown", "shutdown", "running"]

    def test_a_node_that_is_cut_takes_no_step(self, fake: FakeEngine, ground: Ground, before: EngineService) -> None:
        fake.cut(ground.second)
        fake.move(before.id, before.version, ground.second, {})
        fake.settle()
        assert [task.state for task in ground.seen(before.id).tasks] == ["running", "assigned"]

    def test_what_never_becomes_healthy_pauses_the_update(
        self, fake: FakeEngine, ground: Ground, before: EngineService
    ) -> None:
        fake.unhealthy.add((ground.second, "a:1"))
        fake.move(before.id, before.version, ground.second, {})
        fake.settle()
        paused = ground.seen(before.id)
        assert (paused.update, running(paused)) == ("paused", list(before.tasks))
        assert "unhealthy container" in [task.error for task in paused.tasks if task.error][-1]

    def test_a_node_that_is_removed_takes_its_containers_along(
        self, fake: FakeEngine, ground: Ground, before: EngineService
    ) -> None:
        fake.lose(ground.first)
        fake.remove_node(ground.first)
        assert ground.first not in fake.observe().nodes
        assert ground.seen(before.id).tasks[0].state == "orphaned"

    def test_it_can_be_away_and_it_can_refuse(self, fake: FakeEngine, before: EngineService) -> None:
        fake.refuses = "not today"
        with pytest.raises(EngineRefused, match="not today"):
            fake.stop(before.id)
        fake.unavailable = "gone fishing"
        with pytest.raises(EngineUnavailable, match="gone fishing"):
            fake.observe()


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
