"""Services of several containers: the swarm places them, and their number is changed without touching the others."""

import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import EngineService
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import drains, services
from tests.operations.test_migrations import fleet, pass_time
from tests.operations.test_migrations_against_odds import before_it_is_applied
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS

__all__ = ["fleet"]


def deploy(fleet: Fleet, replicas: int, image: str = "app:1") -> str | None:
    spec = ServiceSpec("web", image, Capacity(1, 512, 1), replicas=replicas)
    planned = deploy_admin.deploy(fleet.context, TESTS, fleet.organization, spec)
    fleet.engine.settle()
    fleet.settle()
    return planned.target


def web(fleet: Fleet) -> EngineService:
    [service] = fleet.engine.observe().services.values()
    return service


def containers(fleet: Fleet) -> set[str]:
    return {task.id for task in web(fleet).tasks if task.state == "running"}


def test_several_are_placed_by_the_swarm_and_their_deployment_is_on_no_worker(fleet: Fleet) -> None:
    assert deploy(fleet, 3) is None
    service = fleet.services()["web"]
    assert service.current
    assert (service.status, service.spec.replicas, service.current.worker_id) == ("running", 3, None)
    assert (web(fleet).node_id, web(fleet).replicas, len(containers(fleet))) == (None, 3, 3)
    assert sorted(set(fleet.running()["web"])) == ["w1", "w2", "w3"]


def test_one_becomes_several_and_several_one_without_a_new_container_for_what_runs(fleet: Fleet) -> None:
    deploy(fleet, 1)
    first = containers(fleet)
    deploy(fleet, 3)
    three = containers(fleet)
    assert first < three
    assert len(three) == 3
    assert deploy(fleet, 1) in ("w1", "w2", "w3")
    [left] = containers(fleet)
    assert left in three
    current = fleet.services()["web"].current
    assert current
    assert [current.worker_name] == fleet.running()["web"]
    assert web(fleet).node_id == fleet.nodes[str(current.worker_name)]
    past, _ = services.history(fleet.context, fleet.services()["web"].id)
    assert [each.status for each in past] == ["running", "stopped", "stopped"]


def test_the_one_that_is_left_on_a_node_of_nobody_is_moved_to_a_worker(fleet: Fleet) -> None:
    deploy(fleet, 3)
    others = [name for name in fleet.nodes if name != "w1"]
    manager = fleet.engine.add_node("manager", is_manager=True)
    for name in fleet.nodes:
        fleet.engine.set_availability(fleet.nodes[name], "drain" if name in others else "pause")
    fleet.engine.settle()
    spec = ServiceSpec("web", "app:1", Capacity(1, 512, 1), replicas=1)
    for name in fleet.nodes:
        fleet.engine.set_availability(fleet.nodes[name], "active")
    assert manager in {task.node_id for task in web(fleet).tasks if task.state == "running"}
    deploy_admin.deploy(fleet.context, TESTS, fleet.organization, spec)
    fleet.engine.settle()
    fleet.settle()
    current = fleet.services()["web"].current
    assert current
    assert [current.worker_name] == fleet.running()["web"]


def test_what_else_changes_makes_all_of_them_anew(fleet: Fleet) -> None:
    deploy(fleet, 2)
    before = containers(fleet)
    deploy(fleet, 3, image="app:2")
    assert len(containers(fleet)) == 3
    assert not before & containers(fleet)
    assert fleet.services()["web"].spec.image == "app:2"


def test_it_runs_as_long_as_one_does_and_is_down_once_none_does(fleet: Fleet) -> None:
    deploy(fleet, 2)

    def lose(*names: str) -> None:
        for name in names:
            fleet.engine.lose(fleet.nodes[name])
        fleet.engine.settle()
        fleet.settle()
        pass_time(fleet, seconds=31)
        fleet.beat()
        fleet.settle()

    lose("w1", "w2")
    assert fleet.services()["web"].status == "running"
    lose("w3")
    service = fleet.services()["web"]
    assert (service.status, "no suitable node" in (service.down_reason or "")) == ("down", True)


def test_a_drain_moves_them_off_and_none_of_the_others(fleet: Fleet) -> None:
    deploy(fleet, 3)
    stays = {task.id for task in web(fleet).tasks if task.node_id != fleet.nodes["w1"]}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions())
    fleet.settle()
    fleet.engine.settle()
    fleet.settle()
    assert len(containers(fleet)) == 3
    assert stays < containers(fleet)
    assert "w1" not in fleet.running()["web"]


@pytest.mark.parametrize("replicas", [1, 3])
def test_it_is_removed_with_all_its_containers(fleet: Fleet, replicas: int) -> None:
    deploy(fleet, replicas)
    services.remove(fleet.context, fleet.services()["web"].id, TESTS)
    assert fleet.engine.observe().services == {}


def test_an_interrupted_deployment_of_several_is_applied_by_the_monitor(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise EngineUnavailable("away")

    before_it_is_applied(fleet, monkeypatch, killed)
    with pytest.raises(EngineUnavailable):
        deploy(fleet, 3)
    pass_time(fleet, seconds=31)
    fleet.beat()
    fleet.settle()
    assert len(containers(fleet)) == 3
    assert fleet.services()["web"].status == "running"


def test_several_without_a_place_are_sent_to_no_worker_and_have_failed(fleet: Fleet) -> None:
    for node_id in fleet.nodes.values():
        fleet.engine.set_availability(node_id, "pause")
    deploy(fleet, 3)
    found = fleet.engine.read(web(fleet).id)
    assert found
    nowhere = {"Constraints": [f"node.id!={node_id}" for node_id in fleet.nodes.values()]}
    fleet.engine.change(web(fleet).id, TaskTemplate={**found.spec["TaskTemplate"], "Placement": nowhere})
    for node_id in fleet.nodes.values():
        fleet.engine.set_availability(node_id, "active")
    pass_time(fleet, seconds=31)
    fleet.beat()
    fleet.step()
    current = fleet.services()["web"].current
    assert current
    assert (current.status, current.worker_id, web(fleet).node_id) == ("failed", None, None)
    assert current.log.startswith("no suitable node")
