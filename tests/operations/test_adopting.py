"""Services that run in the swarm already: what may be taken under management, and that it changes nothing of them."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import Document, EngineSpec, Mount
from skyctl.operations.admin import adoption, drains, services
from tests.operations.fleets import fleet_of
from tests.support.fake_placed import replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, look


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        yield fleet


def run(fleet: Fleet, name: str, node: str, limits: Capacity = Capacity()) -> str:
    """A service of somebody else."""
    spec = EngineSpec(name, "net", name, node, "app:1", limits, {"team": "blue"}, {})
    service_id = fleet.engine.deploy(spec, None)
    fleet.engine.settle()
    return service_id


def test_a_service_is_adopted_where_it_runs_and_then_moves_like_any(fleet: Fleet) -> None:
    service_id = run(fleet, "shop", fleet.nodes["w1"], Capacity(0.5, 256))
    before = [task.id for task in fleet.engine.observe().services[service_id].tasks]
    [found] = adoption.adoptable(fleet.context)
    assert (found.worker_name, found.obstacle) == ("w1", "")
    assert found.limits == Capacity(0.5, 256, 10), "the engine's own limits, and the default for disk"
    assert adoption.adopt(fleet.context, TESTS, fleet.organization, [found]) == []
    assert adoption.adoptable(fleet.context) == []
    fleet.settle()
    seen = fleet.engine.observe().services[service_id]
    assert [task.id for task in seen.tasks] == before
    assert seen.labels["team"] == "blue"
    assert fleet.where() == {"shop": "w1"}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    assert fleet.where() == {"shop": "w2"}


def test_what_speaks_against_a_service_is_said(fleet: Fleet) -> None:
    fleet.nodes["stranger"] = fleet.engine.add_node("stranger")
    run(fleet, "elsewhere", fleet.nodes["stranger"])
    fleet.engine.mount(run(fleet, "data", fleet.nodes["w1"]), "/srv/data")
    clock, shared = Mount("bind", "/etc/localtime", "/etc/localtime", read_only=True), {"type": "nfs", "o": "addr=nas"}
    fleet.engine.mount(run(fleet, "clock", fleet.nodes["w1"]), clock, Mount("volume", "n", "/n", options=shared))
    fleet.engine.stop(run(fleet, "stopped", fleet.nodes["w1"]))
    fleet.engine.settle()
    assert {each.engine.name: each.obstacle for each in adoption.adoptable(fleet.context)} == {
        "clock": "",
        "data": "it keeps data on its node, which would not move with it: /srv/data",
        "elsewhere": "its node stranger is no worker: see `skyctl workers install-script`",
        "stopped": "it does not run",
    }


def test_one_that_changed_meanwhile_is_not_adopted_and_said(fleet: Fleet) -> None:
    run(fleet, "shop", fleet.nodes["w1"])
    [found] = adoption.adoptable(fleet.context)
    old = replace(found, engine=replace(found.engine, version=found.engine.version - 1))
    [(refused, why)] = adoption.adopt(fleet.context, TESTS, fleet.organization, [old])
    assert refused.engine.name == "shop"
    assert "version" in why
    assert services.list_services(fleet.context).total == 0
    assert [each.engine.name for each in adoption.adoptable(fleet.context)] == ["shop"], "nothing is half adopted"


def documents(fleet: Fleet) -> dict[str, Document]:
    found = fleet.engine.observe().services.values()
    return {service.name: document.spec for service in found if (document := fleet.engine.read(service.id))}


def test_a_service_of_any_number_of_containers_is_adopted_and_given_back_as_it_was(fleet: Fleet) -> None:
    """Its owner's order, and what happens when an update of his fails, are his after adoption and after a move, too."""
    update = {"Parallelism": 2, "Order": "stop-first", "FailureAction": "rollback"}
    fleet.engine.place(replicated("many", replicas=4, UpdateConfig=update, Labels={"team": "blue"}))
    fleet.engine.place(replicated("one", UpdateConfig=update))
    before = documents(fleet)
    tasks = {task.id for service in fleet.engine.observe().services.values() for task in service.tasks}
    assert adoption.adopt(fleet.context, TESTS, fleet.organization, adoption.adoptable(fleet.context)) == []
    fleet.settle()
    assert {task.id for service in fleet.engine.observe().services.values() for task in service.tasks} == tasks
    assert all(document["UpdateConfig"] == update for document in documents(fleet).values())
    for worker in ("w1", "w2"):
        drains.drain(fleet.context, [fleet.ids[worker]], TESTS)
        fleet.settle()
        assert worker not in {where for places in fleet.running().values() for where in places}
        drains.undrain(fleet.context, fleet.ids[worker], TESTS)
        look(fleet.context)
        fleet.settle()
    assert all(document["UpdateConfig"] == update for document in documents(fleet).values())
    running = fleet.running()
    for service in services.list_services(fleet.context).services:
        adoption.release(fleet.context, service.id, TESTS)
    fleet.settle()
    assert documents(fleet) == before
    assert fleet.running() == running
    assert services.list_services(fleet.context).total == 0


def test_what_speaks_against_it_may_be_overruled_by_its_meaning(fleet: Fleet) -> None:
    bound = replicated("bound", replicas=2)
    bound["TaskTemplate"]["Placement"] = {"Constraints": ["node.hostname == w1"]}
    fleet.engine.place(bound)
    volume = {"Type": "volume", "Source": "data", "Target": "/data"}
    data = replicated("data")
    data["TaskTemplate"]["ContainerSpec"]["Mounts"] = [volume]
    fleet.engine.place(data)
    found = {each.engine.name: each for each in adoption.adoptable(fleet.context)}
    assert {name: each.even_if for name, each in found.items()} == {"bound": "bound", "data": "local-data"}
    assert "no other node would take it: node.hostname == w1" in found["bound"].obstacle


def test_what_its_owner_changed_under_management_stays_when_it_is_given_back(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web"))
    adoption.adopt(fleet.context, TESTS, fleet.organization, adoption.adoptable(fleet.context))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    fleet.engine.change(web, UpdateConfig={"Order": "start-first", "Delay": 3})
    fleet.settle()
    drains.undrain(fleet.context, fleet.ids["w1"], TESTS)
    drains.drain(fleet.context, [fleet.ids["w2"]], TESTS)
    fleet.settle()
    [service] = services.list_services(fleet.context).services
    adoption.release(fleet.context, service.id, TESTS)
    assert documents(fleet)["web"] == {**replicated("web"), "UpdateConfig": {"Order": "start-first", "Delay": 3}}
