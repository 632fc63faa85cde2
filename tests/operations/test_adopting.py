"""Services that run in the swarm already: what may be taken under management, and that it changes nothing of them."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineSpec
from skyctl.operations.admin import drains, services
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS


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
    [found] = services.adoptable(fleet.context)
    assert (found.worker_name, found.obstacle) == ("w1", "")
    assert found.limits == Capacity(0.5, 256, 10), "the engine's own limits, and the default for disk"
    assert services.adopt(fleet.context, TESTS, fleet.organization, [found]) == []
    assert services.adoptable(fleet.context) == []
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
    fleet.engine.stop(run(fleet, "stopped", fleet.nodes["w1"]))
    fleet.engine.settle()
    assert {each.engine.name: each.obstacle for each in services.adoptable(fleet.context)} == {
        "data": "it keeps data on its node, which would not move with it: /srv/data",
        "elsewhere": "its node stranger is no worker: see `skyctl workers install-script`",
        "stopped": "it has 0 replicas, not 1",
    }


def test_one_that_changed_meanwhile_is_not_adopted_and_said(fleet: Fleet) -> None:
    run(fleet, "shop", fleet.nodes["w1"])
    [found] = services.adoptable(fleet.context)
    old = replace(found, engine=replace(found.engine, version=found.engine.version - 1))
    [(refused, why)] = services.adopt(fleet.context, TESTS, fleet.organization, [old])
    assert refused.engine.name == "shop"
    assert "version" in why
    assert services.list_services(fleet.context).total == 0
    assert [each.engine.name for each in services.adoptable(fleet.context)] == ["shop"], "nothing is half adopted"
