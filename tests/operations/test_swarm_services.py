"""Everything that the swarm runs is seen, whoever deployed it."""

import io
from collections.abc import Iterator

import psycopg
import pytest
from rich.console import Console

from skyctl.cli import views
from skyctl.documents.swarm import swarm_services_document
from skyctl.documents.workers import page_document, runs_document
from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineSpec, Mount, Port
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
    assert (found["w1"].engine.stack, found["w1"].engine.mounts) == ("shop", (Mount("bind", "/srv", "/srv"),))
    screen = Console(file=io.StringIO(), width=200)
    for part in views.swarm.services_table(swarm_services_document(list(found.values())), wide=True):
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
    assert views.swarm.runs_text(runs_document(worker, there)).endswith(
        ", web-w1; 3 outside of Swarm, by its last heartbeat"
    )


def test_the_wide_list_has_what_runs_on_each_worker(fleet: Fleet) -> None:
    fleet.connection.execute(
        "UPDATE container_workers SET current_load = jsonb_set(current_load, '{containerCount}', '3') WHERE name = 'w2'"
    )
    page = workers.list_workers(fleet.context)
    there = swarm_services.on_workers(fleet.context, page.workers)
    document = page_document(page, fleet.context.health)
    for row, worker in zip(document["workers"], page.workers, strict=True):
        row["runs"] = runs_document(worker, there[worker.id])
    ours = next(each.name for each in fleet.engine.observe().services.values() if each.name.endswith("ours"))
    assert {row["name"]: views.swarm.runs_text(row["runs"]) for row in document["workers"]} == {
        "w1": f"{ours}, web-w1",
        "w2": "web-w2; 2 outside of Swarm, by its last heartbeat",
    }
    screen = Console(file=io.StringIO(), width=400)
    for part in views.workers.worker_table(document, wide=True):
        screen.print(part)
    assert "2 outside of Swarm" in screen.file.getvalue()  # type: ignore[attr-defined]
