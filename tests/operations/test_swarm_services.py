"""Everything that the swarm runs is seen, whoever deployed it."""

import io
from collections.abc import Iterator

import psycopg
import pytest
from rich.console import Console

from skyctl.cli import views
from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineSpec, Port
from skyctl.domain.workloads import Place
from skyctl.operations.admin import swarm_services, workers
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Two workers, one service of ours, and one of somebody else's on each of three nodes."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        fleet.deploy("ours", to="w1")
        fleet.nodes["nobodys"] = fleet.engine.add_node("nobodys")
        labels = {"com.docker.stack.namespace": "shop"}
        for node in ("w1", "w2", "nobodys"):
            name = f"web-{node}"
            ports = [Port(8000 + len(fleet.engine.observe().services), 80)]
            spec = EngineSpec(name, "net", name, fleet.nodes[node], "app:2", Capacity(), labels, {}, ports=ports)
            fleet.engine.mount(fleet.engine.deploy(spec, None), "/srv")
        fleet.engine.settle()
        yield fleet


def test_every_service_is_listed_with_where_it_runs(fleet: Fleet) -> None:
    fleet.engine.stop(next(each.id for each in fleet.engine.observe().services.values() if each.name == "web-w2"))
    fleet.engine.settle()
    found = {each.engine.name.split("-")[-1]: each for each in swarm_services.everything(fleet.context)}
    assert {name: each.is_managed for name, each in found.items()} == {
        "ours": True,
        "w1": False,
        "w2": False,
        "nobodys": False,
    }
    assert found["w1"].places == [Place("w1", "w1", 1)]
    assert found["nobodys"].places == [Place(None, "nobodys", 1)]
    assert (found["w2"].running, found["w2"].wanted, found["w1"].running, found["w1"].wanted) == (0, 0, 1, 1)
    assert (found["w1"].engine.stack, found["w1"].engine.mounts) == ("shop", ("/srv:/srv",))
    screen = Console(file=io.StringIO(), width=200)
    for part in views.swarm.services_table(list(found.values()), wide=True):
        screen.print(part)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("nobodys (no worker)", "1 of 1", "8001:80", "/srv:/srv", "shop", "4 services"):
        assert shown in text


def test_a_worker_tells_what_runs_there_by_service_and_beside_the_swarm(fleet: Fleet) -> None:
    fleet.connection.execute(
        """UPDATE container_workers SET current_load = '{"containerCount": 5}' WHERE name = 'w1'"""
    )
    worker = workers.get(fleet.context, fleet.ids["w1"])
    there = swarm_services.on_worker(fleet.context, worker)
    assert [occupant.name.split("-")[-1] for occupant in there] == ["ours", "w1"]
    assert views.swarm.occupants_text(worker, there).endswith(", web-w1; 3 outside of Swarm, by its last heartbeat")
