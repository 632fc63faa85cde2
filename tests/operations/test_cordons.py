"""A cordoned worker takes nothing new, by whomever it would be placed, and keeps what it has."""

from collections.abc import Iterator

import psycopg
import pytest

from skyctl.domain.drains import DrainOptions
from skyctl.domain.errors import Refused
from skyctl.operations.admin import cordons, drains
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user, look


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Two workers, and a service on the first."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        add_user(connection)
        fleet.deploy("a", to="w1")
        yield fleet


def cordon(fleet: Fleet, *names: str, reason: str | None = None) -> None:
    cordons.cordon(fleet.context, [fleet.ids[name] for name in names], TESTS, reason)
    fleet.settle()


def uncordon(fleet: Fleet, name: str) -> None:
    assert cordons.uncordon(fleet.context, fleet.ids[name], TESTS)
    fleet.settle()


def availability(fleet: Fleet, name: str = "w1") -> str:
    return fleet.engine.nodes[fleet.nodes[name]].availability


def told(fleet: Fleet) -> list[tuple[str, str, str]]:
    rows = fleet.connection.execute(
        "SELECT kind, actor, reason FROM worker_events WHERE kind IN ('cordoned', 'uncordoned') ORDER BY seq"
    )
    return [(kind, actor, reason) for kind, actor, reason in rows]


def test_nothing_new_comes_and_what_is_there_stays(fleet: Fleet) -> None:
    cordon(fleet, "w1", reason="odd latencies")
    assert availability(fleet) == "pause"
    fleet.deploy("b", "c", "d")
    assert fleet.where() == {"a": "w1", "b": "w2", "c": "w2", "d": "w2"}
    look(fleet.context)
    status = "SELECT status FROM container_workers WHERE name = 'w1'"
    assert fleet.connection.execute(status).fetchone() == ("active",), "its health is another matter"
    uncordon(fleet, "w1")
    assert availability(fleet) == "active"
    fleet.deploy("e", cores=2)
    assert fleet.where()["e"] == "w1"
    assert told(fleet) == [("cordoned", TESTS.name, "odd latencies"), ("uncordoned", TESTS.name, "")]


def test_nothing_is_moved_to_it(fleet: Fleet) -> None:
    fleet.add("w3")
    fleet.deploy("b", to="w3")
    cordon(fleet, "w1")
    drains.drain(fleet.context, [fleet.ids["w3"]], TESTS)
    fleet.settle()
    fleet.fail("w2")
    fleet.settle()
    assert fleet.where()["a"] == "w1"
    assert fleet.where()["b"] == "w2"
    assert "1 cordoned" in fleet.migrations()["b"].reason


def test_where_all_are_cordoned_a_deployment_says_so(fleet: Fleet) -> None:
    cordon(fleet, "w1", "w2")
    with pytest.raises(Refused, match="2 cordoned"):
        fleet.deploy("b")


def test_what_fails_there_is_moved_off_it(fleet: Fleet) -> None:
    cordon(fleet, "w1")
    fleet.fail("w1")
    fleet.settle()
    assert fleet.where() == {"a": "w2"}


def test_a_node_that_somebody_opens_in_the_swarm_is_closed_again(fleet: Fleet) -> None:
    cordon(fleet, "w1")
    fleet.engine.set_availability(fleet.nodes["w1"], "active")
    fleet.settle()
    assert availability(fleet) == "pause"


def test_a_node_that_somebody_paused_before_stays_paused_afterwards(fleet: Fleet) -> None:
    fleet.engine.set_availability(fleet.nodes["w1"], "pause")
    cordon(fleet, "w1")
    uncordon(fleet, "w1")
    assert availability(fleet) == "pause"


def test_a_drain_ends_and_the_cordon_stays(fleet: Fleet) -> None:
    cordon(fleet, "w1")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    look(fleet.context)
    fleet.settle()
    assert fleet.where() == {"a": "w2"}
    fleet.engine.set_availability(fleet.nodes["w1"], "drain")  # as its end does where something runs on every node
    drains.undrain(fleet.context, fleet.ids["w1"], TESTS)
    look(fleet.context)
    fleet.settle()
    assert availability(fleet) == "pause", "what runs on every node comes back, and nothing else"
    uncordon(fleet, "w1")
    assert availability(fleet) == "active"


def test_a_cordon_ends_and_the_drain_stays(fleet: Fleet) -> None:
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions("new disks"))
    cordon(fleet, "w1")
    uncordon(fleet, "w1")
    assert availability(fleet) == "pause"
    assert fleet.where() == {"a": "w2"}


def test_once_more_changes_nothing_but_a_reason(fleet: Fleet) -> None:
    for reason in ("one", None, "one", "two"):
        cordon(fleet, "w1", reason=reason)
    uncordon(fleet, "w1")
    assert cordons.uncordon(fleet.context, fleet.ids["w1"], TESTS) is None
    assert [reason for _, _, reason in told(fleet)] == ["one", "two", ""]
