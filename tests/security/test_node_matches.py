"""A worker whose agent says no node gets the one that the engine shows at its address, and never another's: rows as the
panel writes them, a monitor's steps, and an engine that shows what there is."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from skyctl import settings, wiring
from skyctl.domain.cluster import Capacity, Registration
from skyctl.domain.engine import SwarmJoin
from skyctl.operations.admin import doctor_nodes, node_claims, workers
from skyctl.operations.agents import invitations
from skyctl.operations.agents.registration import register
from tests.conftest import make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_worker

AT = "10.0.0.{}"


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """The nodes head, which manages, w1 and w2, at .1, .2 and .3; none is a worker's."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine)
    fleet = Fleet(context, connection, engine)
    for number, name in enumerate(("head", "w1", "w2"), 1):
        fleet.nodes[name] = engine.add_node(name, AT.format(number), is_manager=name == "head")
    yield fleet
    context.db.close()


def panels(fleet: Fleet, name: str, address: str, hostname: str = "", **columns: Any) -> None:
    """A worker that the panel made and whose agent, the panel's, is heard."""
    size = json.dumps({"cpu_cores": 4, "memory_mb": 4096, "disk_gb": 100})
    row = {"hostname": hostname or name, "ip_address": address, "status": "active", "capacity": size} | columns
    fleet.ids[name] = add_worker(fleet.connection, name=name, last_heartbeat_at="now", **row)


def node(fleet: Fleet, name: str) -> str | None:
    """The confirmed node of a worker, after the monitor has looked."""
    fleet.claims()
    return workers.get(fleet.context, fleet.ids[name]).confirmed_node


def test_a_worker_of_the_panels_is_a_target_by_what_the_engine_shows(fleet: Fleet) -> None:
    panels(fleet, "w1", AT.format(2))
    panels(fleet, "w2", AT.format(3))
    assert [node(fleet, name) for name in ("w1", "w2")] == [fleet.nodes["w1"], fleet.nodes["w2"]]
    fleet.deploy("shop", to="w1")
    fleet.fail("w1")
    fleet.settle()
    assert fleet.where() == {"shop": "w2"}


@pytest.mark.parametrize(
    "rows",
    [
        {"w1": (AT.format(9), "w1")},
        {"w1": (AT.format(2), "w2")},
        {"head": (AT.format(1), "head")},
        {"w1": (AT.format(2), "w1"), "thief": (AT.format(2), "w1")},
        {"w1": (AT.format(2), "w1"), "thief": (AT.format(2), "other")},
        {"w1": ("0.0.0.0", "w1")},
    ],
    ids=["no such node", "another hostname", "a manager", "two alike", "two at one address", "no address"],
)
def test_nothing_is_guessed(fleet: Fleet, rows: dict[str, tuple[str, str]]) -> None:
    for name, (address, hostname) in rows.items():
        panels(fleet, name, address, hostname)
    assert [node(fleet, name) for name in rows] == [None] * len(rows)
    assert fleet.connection.execute("SELECT count(*) FROM worker_events").fetchone() == (0,)


def test_of_a_managers_node_an_administrator_says_it(fleet: Fleet) -> None:
    panels(fleet, "head", AT.format(1))
    assert node(fleet, "head") is None
    node_claims.allow(fleet.context, fleet.ids["head"], fleet.nodes["head"], TESTS)
    assert node(fleet, "head") == fleet.nodes["head"]


def test_two_nodes_at_one_address_are_nobodys(fleet: Fleet) -> None:
    fleet.engine.add_node("w1", AT.format(2))
    panels(fleet, "w1", AT.format(2))
    assert node(fleet, "w1") is None


def test_a_node_that_another_worker_has_or_claims_is_not_taken(fleet: Fleet) -> None:
    panels(fleet, "w1", AT.format(2))
    assert node(fleet, "w1") == fleet.nodes["w1"]
    panels(fleet, "thief", AT.format(2), "w1")
    assert (node(fleet, "thief"), node(fleet, "w1")) == (None, fleet.nodes["w1"])
    panels(fleet, "owner", AT.format(8), "w2", swarm_node_claim=fleet.nodes["w2"])
    panels(fleet, "w2", AT.format(3))
    assert node(fleet, "w2") is None, "the claim of another, true or not, is not passed over"


def test_who_registers_here_is_not_matched_by_what_he_says(fleet: Fleet) -> None:
    """Whoever has a token could say another's hostname and address."""
    thief = invitations.invite(fleet.context, TESTS, "thief")
    said = Registration("w1", AT.format(2), Capacity(4, 4096, 100), {}, came_from=AT.format(66))
    register(fleet.context, thief.token, said)
    fleet.ids["thief"] = thief.worker_id
    fleet.beat("thief")
    assert node(fleet, "thief") is None


def test_what_the_host_says_itself_later_counts_or_is_said_to_be_wrong(fleet: Fleet) -> None:
    for claimed, expected in ((fleet.nodes["w1"], fleet.nodes["w1"]), (fleet.nodes["w2"], None)):
        fleet.connection.execute("DELETE FROM container_workers")
        panels(fleet, "w1", AT.format(2))
        assert node(fleet, "w1") == fleet.nodes["w1"]
        anew = invitations.invite_again(fleet.context, TESTS, fleet.ids["w1"])
        metadata = {"swarmNodeId": claimed}
        said = Registration("w1", AT.format(2), Capacity(4, 4096, 100), metadata, came_from=AT.format(2))
        register(fleet.context, anew.token, said)
        assert node(fleet, "w1") == expected
    [(reason,)] = fleet.connection.execute("SELECT reason FROM worker_events WHERE kind = 'node_refuted'").fetchall()
    assert "the node's hostname is w2, the worker's w1" in reason


def test_a_host_that_joined_anew_is_found_again(fleet: Fleet) -> None:
    panels(fleet, "w1", AT.format(2))
    assert node(fleet, "w1") == fleet.nodes["w1"]
    fleet.engine.remove_node(fleet.nodes["w1"])
    anew = fleet.engine.add_node("w1", AT.format(2))
    assert node(fleet, "w1") == anew


def test_who_was_never_heard_is_not_looked_for(fleet: Fleet) -> None:
    panels(fleet, "w1", AT.format(2))
    fleet.connection.execute("UPDATE container_workers SET last_heartbeat_at = NULL")
    assert node(fleet, "w1") is None


def test_the_doctor_says_who_is_left_without_a_node_and_why(fleet: Fleet, environment: dict[str, str]) -> None:
    inputs = replace(wiring.doctor_inputs(settings.load(environment=environment)), engine=lambda: fleet.engine)

    def found() -> tuple[str, str]:
        fleet.claims()
        check = doctor_nodes.examine(inputs)
        return check.state.value, check.found

    panels(fleet, "w1", AT.format(2))
    assert found() == ("ok", "each worker that was heard has one")
    panels(fleet, "w2", AT.format(9))
    panels(fleet, "a", AT.format(3), "a")
    panels(fleet, "b", AT.format(5))
    panels(fleet, "c", AT.format(5))
    joined = invitations.invite(fleet.context, TESTS, "ours")
    register(fleet.context, joined.token, Registration("ours", AT.format(7), Capacity(1, 1024, 10), {}))
    fleet.ids["ours"] = joined.worker_id
    fleet.beat("ours")
    fleet.engine.add_node("b", AT.format(5))
    reasons = (
        f"a (the node at {AT.format(3)} is called w2, the worker a)",
        f"b (worker c is at {AT.format(5)}, too)",
        f"c (worker b is at {AT.format(5)}, too)",
        "ours (its agent says that its host is in no swarm)",
        f"w2 (the swarm has no node at {AT.format(9)})",
    )
    assert found() == ("warning", f"without one: {', '.join(reasons)}")
    fleet.engine.unavailable = "the engine does not answer"
    assert found() == ("warning", "5 without one; why is not known: the engine does not answer")
