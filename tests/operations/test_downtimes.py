"""`running` means that a container runs: without one a service is down, which is said once, with the engine's words."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import add_user

GRACE = timedelta(seconds=30)


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Two workers, a service on the first, an administrator, and a member of its organization."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        add_user(connection)
        fleet.deploy("web", to="w1")
        yield fleet


def events(fleet: Fleet) -> list[tuple[str, str]]:
    rows = fleet.connection.execute(
        "SELECT kind, reason FROM worker_events WHERE kind IN ('service_down', 'service_up') ORDER BY seq"
    )
    return [(kind, reason.split(" s: ")[-1]) for kind, reason in rows]


def alerts(fleet: Fleet) -> list[tuple[str, bool, str]]:
    rows = fleet.connection.execute("SELECT kind, metadata ? 'organizationId', title FROM worker_alerts ORDER BY id")
    return [row for row in rows if row[0].startswith("service_")]


def pass_time(fleet: Fleet, time: timedelta = GRACE + timedelta(seconds=1)) -> None:
    fleet.context.db.ahead += time
    fleet.beat()


def status(fleet: Fleet) -> str:
    return fleet.services()["web"].status.value


def test_a_node_that_takes_nothing_leaves_its_service_down_until_it_takes_it_again(fleet: Fleet) -> None:
    node = fleet.nodes["w1"]
    fleet.engine.set_availability(node, "pause")
    fleet.engine.evict(node)
    fleet.step()
    assert (status(fleet), events(fleet)) == ("running", [])
    pass_time(fleet)
    fleet.settle()
    assert status(fleet) == "down"
    words = "no suitable node (its node takes nothing new on 1 node)"
    assert events(fleet) == [("service_down", words)]
    assert fleet.services()["web"].down_reason == words
    pass_time(fleet)
    fleet.settle()
    assert alerts(fleet) == [
        ("service_down", False, "Service web is down"),
        ("service_down", True, "Your service web is down"),
    ]
    told = fleet.connection.execute("SELECT message FROM worker_alerts WHERE kind = 'service_down' ORDER BY id")
    assert ["(on w1)" in message for (message,) in told] == [True, False], "members do not learn of workers"
    fleet.engine.set_availability(node, "active")
    fleet.settle()
    assert status(fleet) == "running"
    assert [kind for kind, _ in events(fleet)] == ["service_down", "service_up"]
    assert [alert[:2] for alert in alerts(fleet)[2:]] == [("service_up", False), ("service_up", True)]


def test_a_container_that_is_started_again_within_the_grace_time_is_not_told_of(fleet: Fleet) -> None:
    node = fleet.nodes["w1"]
    for _ in range(3):
        fleet.engine.set_availability(node, "pause")
        fleet.engine.evict(node)
        fleet.step()
        pass_time(fleet, GRACE / 2)
        fleet.engine.set_availability(node, "active")
        fleet.settle()
    assert (events(fleet), alerts(fleet)) == ([], [])


def test_a_service_that_is_stopped_by_order_is_not_down(fleet: Fleet) -> None:
    [service_id] = fleet.engine.observe().services
    fleet.engine.stop(service_id)
    fleet.step()
    pass_time(fleet)
    fleet.settle()
    assert (status(fleet), events(fleet)) == ("stopped", [])


@pytest.mark.parametrize("how", ["stop", "remove"])
def test_one_that_is_down_and_is_then_stopped_or_removed_is_not_called_up(fleet: Fleet, how: str) -> None:
    [service_id] = fleet.engine.observe().services
    fleet.engine.set_availability(fleet.nodes["w1"], "pause")
    fleet.engine.evict(fleet.nodes["w1"])
    fleet.step()
    pass_time(fleet)
    fleet.settle()
    assert status(fleet) == "down"
    getattr(fleet.engine, how)(service_id)
    fleet.settle()
    assert status(fleet) == {"stop": "stopped", "remove": "failed"}[how]
    assert [kind for kind, _ in events(fleet)] == ["service_down"]
    assert fleet.services()["web"].down_reason is None


def test_a_time_in_which_nobody_looked_is_not_told(fleet: Fleet) -> None:
    fleet.engine.set_availability(fleet.nodes["w1"], "pause")
    fleet.engine.evict(fleet.nodes["w1"])
    fleet.step()
    pass_time(fleet, timedelta(minutes=10))
    fleet.settle()
    assert events(fleet) == []
    pass_time(fleet)
    fleet.settle()
    [(_, reason)] = fleet.connection.execute(
        "SELECT kind, reason FROM worker_events WHERE kind = 'service_down'"
    ).fetchall()
    assert reason.startswith("web: down for 3")


def test_of_many_that_are_down_there_is_one_alert_to_each(fleet: Fleet) -> None:
    fleet.deploy(*(f"s{number}" for number in range(6)), to="w1", cores=0.1)
    fleet.engine.set_availability(fleet.nodes["w1"], "pause")
    fleet.engine.evict(fleet.nodes["w1"])
    fleet.step()
    pass_time(fleet)
    fleet.settle()
    assert alerts(fleet) == [
        ("service_down", False, "7 services are down"),
        ("service_down", True, "7 of your services are down"),
    ]
