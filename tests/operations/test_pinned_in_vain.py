"""A service that is pinned where nothing can run is pinned to its worker's node again."""

from collections.abc import Iterator

import psycopg
import pytest

from skyctl.operations.admin import drains
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user, look


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        add_user(connection)
        fleet.deploy("web", to="w1")
        yield fleet


def rejoin(fleet: Fleet, name: str) -> None:
    """The host was installed anew: it is another node now, and the swarm remembers the former one as down."""
    fleet.engine.lose(fleet.nodes[name])
    node = fleet.nodes[name] = fleet.engine.add_node(name)
    fleet.connection.execute("UPDATE container_workers SET swarm_node_id = %s WHERE name = %s", (node, name))
    fleet.claims()


def pinned_anew(fleet: Fleet) -> int:
    rows = fleet.connection.execute("SELECT count(*) FROM worker_events WHERE kind = 'service_pinned_anew'")
    return int(rows.fetchall()[0][0])


def test_a_host_that_joined_again_gets_its_containers_back(fleet: Fleet) -> None:
    rejoin(fleet, "w1")
    fleet.settle()
    assert fleet.where() == {"web": "w1"}
    assert fleet.services()["web"].status == "running"
    assert "w1" in fleet.running()["web"]
    assert pinned_anew(fleet) == 1


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_drain_of_a_host_that_joined_again_moves_its_containers(fleet: Fleet, *, is_forgotten: bool) -> None:
    """It was cancelled: "somebody has pinned it to another node"; and the drain said that one stays, running."""
    former = fleet.nodes["w1"]
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    rejoin(fleet, "w1")
    if is_forgotten:
        fleet.engine.remove_node(former)
    fleet.settle()
    assert fleet.where() == {"web": "w2"}
    assert "w2" in fleet.running()["web"]
    [progress] = drains.progress(fleet.context, [fleet.ids["w1"]])
    assert progress.is_empty


def test_an_owners_rollback_after_a_move_does_not_leave_it_pinned_to_the_drained_worker(fleet: Fleet) -> None:
    [service_id] = fleet.engine.observe().services
    before = fleet.engine.read(service_id)
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    assert fleet.where() == {"web": "w2"}
    now = fleet.engine.read(service_id)
    assert before
    assert now
    fleet.engine.write(service_id, now.version, before.spec)
    fleet.engine.evict(fleet.nodes["w2"])  # the swarm stops what no longer complies
    fleet.settle()
    assert fleet.running() == {"web": ["w2"]}
    assert fleet.services()["web"].status == "running"
    assert pinned_anew(fleet) == 1


def test_what_somebody_pins_to_a_node_that_takes_it_is_his(fleet: Fleet) -> None:
    [service_id] = fleet.engine.observe().services
    document = fleet.engine.read(service_id)
    assert document
    fleet.engine.move(service_id, document.version, fleet.nodes["w2"], {})
    fleet.settle()
    look(fleet.context)
    assert fleet.running() == {"web": ["w2"]}
    assert fleet.where() == {"web": "w2"}
    assert pinned_anew(fleet) == 0
