"""Containers are placed only where Swarm would start them, and a plan says where the drain puts them."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineSpec, Port
from skyctl.domain.errors import Refused
from skyctl.domain.states import EndpointMode
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy, drain_plans, drains
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS

SMALL = Capacity(0.5, 64, 1)


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(database_url, connection, "w1", "w2", "w3") as fleet:
        yield fleet


def published(name: str, port: int = 18080, **more: Any) -> ServiceSpec:
    """A service whose node publishes a port of it."""
    return ServiceSpec(name, "app:1", SMALL, ports=[Port(port, 80)], endpoint_mode=EndpointMode.DNSRR, **more)


def deployed(fleet: Fleet, spec: ServiceSpec) -> None:
    deploy.deploy(fleet.context, TESTS, fleet.organization, spec)


def engine_id(fleet: Fleet, name: str) -> str:
    current = fleet.services()[name].current
    assert current
    assert current.swarm_service_id
    return current.swarm_service_id


def test_one_port_of_a_node_goes_to_one_service(fleet: Fleet) -> None:
    """Whether the engine shows the first one's container by then or not."""
    for name in ("pa", "pb"):
        deployed(fleet, published(name))
    fleet.settle()
    deployed(fleet, published("pc"))
    deployed(fleet, published("other", 18081))
    fleet.settle()
    assert sorted(str(fleet.where()[name]) for name in ("pa", "pb", "pc")) == ["w1", "w2", "w3"]
    assert all(fleet.running().values())
    with pytest.raises(Refused) as refused:
        deployed(fleet, published("pd"))
    assert refused.value.message == ("pd finds no place: no worker is eligible: 3 host-mode port already in use: 18080")
    assert "pd" not in fleet.services()


def test_a_port_that_somebody_elses_service_has_is_taken(fleet: Fleet) -> None:
    for name in ("w1", "w3"):
        spec = EngineSpec(
            f"theirs-{name}",
            "net",
            name,
            fleet.nodes[name],
            "app:2",
            SMALL,
            {},
            {},
            ports=[Port(18080, 80)],
            endpoint_mode=EndpointMode.DNSRR,
        )
        fleet.engine.deploy(spec, None)
    fleet.engine.settle()
    deployed(fleet, published("pa"))
    assert fleet.where() == {"pa": "w2"}


def test_a_service_with_a_port_of_its_node_is_changed_where_it_is(fleet: Fleet) -> None:
    deployed(fleet, published("hp"))
    fleet.settle()
    before = fleet.where()["hp"]
    deployed(fleet, published("hp", environment={"A": "2"}))
    fleet.settle()
    assert fleet.where()["hp"] == before
    assert fleet.running()["hp"] == [before]
    assert fleet.services()["hp"].status == "running"


def test_a_change_that_finds_no_room_beside_the_old_container_goes_elsewhere(fleet: Fleet) -> None:
    """Both are there for a while, and reserve half of their limits each."""
    fleet.deploy("large", to="w1", cores=3)
    fleet.engine.describe(fleet.nodes["w1"], capacity=Capacity(2, 4096))
    deployed(fleet, ServiceSpec("large", "app:2", Capacity(1.5, 512, 1)))
    fleet.settle()
    assert fleet.where()["large"] in ("w2", "w3")
    assert fleet.running()["large"] == [fleet.where()["large"]]


def test_a_move_asks_what_the_engines_service_asks(fleet: Fleet) -> None:
    fleet.deploy("shop", to="w1")
    fleet.engine.require(engine_id(fleet, "shop"), "node.labels.disk==ssd")
    fleet.engine.describe(fleet.nodes["w3"], labels={"disk": "ssd"})
    [planned] = drain_plans.plan(fleet.context, [fleet.ids["w1"]])
    assert planned.target == "w3"
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    assert fleet.where() == {"shop": "w3"}


def test_a_move_that_no_node_would_take_waits_and_says_why(fleet: Fleet) -> None:
    fleet.deploy("shop", to="w1")
    fleet.engine.require(engine_id(fleet, "shop"), "node.labels.disk==ssd")
    why = "no worker is eligible: 1 draining, 2 scheduling constraints not satisfied: node.labels.disk==ssd"
    [planned] = drain_plans.plan(fleet.context, [fleet.ids["w1"]])
    assert planned.reason == why.replace("1 draining, ", "").replace("disk==ssd", "disk==ssd, 1 to be drained")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    migration = fleet.migrations()["shop"]
    assert (migration.state, migration.attempts, migration.reason) == ("queued", 0, why)
    assert fleet.running()["shop"] == ["w1"]
    fleet.engine.describe(fleet.nodes["w2"], labels={"disk": "SSD"})
    fleet.settle()
    assert fleet.where() == {"shop": "w2"}


def test_moves_of_one_port_do_not_meet_on_one_node(fleet: Fleet) -> None:
    """Also where the first one's container is not to be seen there yet when the second one is placed."""
    for name in ("pa", "pb"):
        deployed(fleet, published(name))
    fleet.settle()
    on = set(fleet.where().values())
    [free] = fleet.ids.keys() - on
    drains.drain(fleet.context, [fleet.ids[name] for name in sorted(map(str, on))], TESTS)
    fleet.settle()
    assert list(fleet.where().values()).count(free) == 1
    states = {name: (each.state.value, each.attempts) for name, each in fleet.migrations().items()}
    assert sorted(states.values()) == [("completed", 1), ("queued", 0)]


def test_the_drain_puts_everything_where_its_plan_says(fleet: Fleet) -> None:
    """More than begin at once, of several sizes, onto workers of several loads whose heartbeats tell nothing new."""
    for number, cores in enumerate((0.5, 0.2, 1.0, 0.5, 0.2, 0.5, 0.2)):
        fleet.deploy(f"s{number}", to="w1", cores=cores, memory=64)
    for name, load in (("w2", 0), ("w3", 12)):
        said = json.dumps({"cpuPercent": load, "memoryPercent": 0, "diskPercent": 0, "containerCount": 0})
        fleet.connection.execute("UPDATE container_workers SET current_load = %s WHERE name = %s", (said, name))
    planned = {each.service_name: each.target for each in drain_plans.plan(fleet.context, [fleet.ids["w1"]])}
    assert set(planned.values()) == {"w2", "w3"}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    assert fleet.where() == planned
