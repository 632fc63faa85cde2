"""A host may say which swarm node it is, and cannot make that true: by real registrations over HTTP, a monitor's steps
and an engine that shows what there is."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest

from skyctl.domain.cluster import Capacity, Worker
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import SwarmJoin
from skyctl.domain.errors import Refused
from skyctl.domain.events import EventKind
from skyctl.operations.admin import alerts, drains, node_claims, workers
from skyctl.operations.agents import invitations
from tests.conftest import Process, make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, bearer, look

PROXY = "127.0.0.1"
AT = "10.0.0.{}"


class Hosts:
    """Hosts that register over HTTP, each from its own address; the fleet's monitor looks when it is told to."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet, self.context, self._url = fleet, fleet.context, url
        self._tokens: dict[str, str] = {}

    def invite(self, name: str) -> None:
        """Make a worker to register as."""
        invited = invitations.invite(self.context, TESTS, name)
        self._tokens[name], self.fleet.ids[name] = invited.token, invited.worker_id

    def register(
        self, name: str, node: str, came_from: str, *, hostname: str = "", says: str = "", **more: Any
    ) -> httpx.Response:
        """A registration; `came_from` is where it comes from, `says` where the host says it is."""
        if name not in self._tokens:
            self.invite(name)
        body = {
            "hostname": hostname or name,
            "ipAddress": says or came_from,
            "capacity": {"cpuCores": 4, "memoryMb": 4096, "diskGb": 100},
            "metadata": {"swarmNodeId": node, "machineId": name},
        }
        headers = {**bearer(self._tokens[name]), "X-Forwarded-For": came_from}
        answer = httpx.post(
            f"{self._url}/api/workers/register", json=body | more, headers=headers, timeout=PATIENCE_SECONDS
        )
        assert answer.status_code == 201, answer.text
        self.beat(name)
        return answer

    def beat(self, name: str) -> None:
        """A heartbeat, and the monitor's conclusion of it."""
        path = f"{self._url}/api/workers/{self.fleet.ids[name]}/heartbeat"
        body = dict.fromkeys(LOAD, 0)
        answer = httpx.post(path, json=body, headers=bearer(self._tokens[name]), timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200, answer.text
        look(self.context)

    def worker(self, name: str) -> Worker:
        """A worker as it is stored."""
        return workers.get(self.context, self.fleet.ids[name])

    def is_confirmed(self, name: str) -> bool:
        """Whether its node counts, after the monitor has looked."""
        self.fleet.step()
        return self.worker(name).confirmed_node is not None

    def told(self, kind: EventKind) -> list[tuple[str, str]]:
        """Whom the events of a kind name, and why."""
        rows = self.fleet.connection.execute(
            "SELECT worker_name, coalesce(reason, '') FROM worker_events WHERE kind = %s ORDER BY seq", (kind.value,)
        )
        return [(row[0], row[1]) for row in rows]


@pytest.fixture
def hosts(
    database_url: str, connection: psycopg.Connection, serve: Callable[..., tuple[str, Process]]
) -> Iterator[Hosts]:
    """A manager's node and two workers' nodes, of which none has registered."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine)
    fleet = Fleet(context, connection, engine)
    fleet.nodes["head"] = engine.add_node("head", AT.format(1), is_manager=True)
    for number, name in enumerate(("w1", "w2"), 2):
        fleet.nodes[name] = engine.add_node(name, AT.format(number))
    url, _ = serve("--proxy", PROXY)
    yield Hosts(fleet, url)
    context.db.close()


def test_a_host_that_says_the_truth_is_confirmed_at_the_next_step(hosts: Hosts) -> None:
    answer = hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2))
    document = answer.json()["data"]
    assert (document["swarmNodeId"], document["swarmNodeClaim"]) == (None, hosts.fleet.nodes["w1"])
    assert hosts.is_confirmed("w1")
    assert hosts.worker("w1").swarm_node_id == hosts.fleet.nodes["w1"]
    assert hosts.told(EventKind.NODE_CONFIRMED) == [("w1", "")]
    hosts.fleet.deploy("shop")
    assert hosts.fleet.running() == {"shop": ["w1"]}


def test_a_claim_of_the_managers_node_neither_pauses_it_nor_removes_it(hosts: Hosts) -> None:
    hosts.register("thief", hosts.fleet.nodes["head"], AT.format(1), hostname="head")
    assert not hosts.is_confirmed("thief")
    drains.drain(hosts.context, [hosts.fleet.ids["thief"]], TESTS, DrainOptions())
    look(hosts.context)
    hosts.fleet.settle()
    assert hosts.fleet.engine.nodes[hosts.fleet.nodes["head"]].availability == "active"
    workers.remove(hosts.context, hosts.fleet.ids["thief"], TESTS)
    assert hosts.fleet.nodes["head"] in hosts.fleet.engine.nodes
    assert hosts.fleet.engine.orders == []


def test_an_impostor_that_was_first_neither_keeps_the_real_host_out_nor_takes_its_node_along(hosts: Hosts) -> None:
    node = hosts.fleet.nodes["w2"]
    hosts.register("thief", node, AT.format(9), hostname="w2", says=AT.format(3))
    assert not hosts.is_confirmed("thief")
    hosts.register("w2", node, AT.format(3))
    assert hosts.is_confirmed("w2")
    assert not hosts.is_confirmed("thief")
    workers.remove(hosts.context, hosts.fleet.ids["thief"], TESTS)
    assert node in hosts.fleet.engine.nodes
    assert hosts.is_confirmed("w2")
    workers.remove(hosts.context, hosts.fleet.ids["w2"], TESTS)
    assert node not in hosts.fleet.engine.nodes


def test_an_impostor_is_told_of_once_with_the_reason_and_gets_nothing(hosts: Hosts) -> None:
    hosts.register("w2", hosts.fleet.nodes["w2"], AT.format(3))
    assert hosts.is_confirmed("w2")
    for _ in "once", "again":
        hosts.register("thief", hosts.fleet.nodes["w2"], AT.format(9), hostname="w2", says=AT.format(3))
        assert not hosts.is_confirmed("thief")
    assert hosts.told(EventKind.NODE_REFUTED) == [("thief", "the node is that of worker w2")]
    raised = [alert for alert in alerts.since(hosts.context, 0) if alert.kind == "node_refuted"]
    assert [alert.worker_id for alert in raised] == [hosts.fleet.ids["thief"]]
    assert hosts.is_confirmed("w2")
    drains.drain(hosts.context, [hosts.fleet.ids["w2"]], TESTS, DrainOptions())
    with pytest.raises(Refused, match="1 its node is not confirmed"):
        hosts.fleet.deploy("shop")


def test_people_are_told_once_of_whoever_claims_its_own_node_in_between(hosts: Hosts) -> None:
    for _ in range(3):
        hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2))
        assert hosts.is_confirmed("w1")
        hosts.register("w1", hosts.fleet.nodes["w2"], AT.format(2))
        assert not hosts.is_confirmed("w1")
    assert len(hosts.told(EventKind.NODE_REFUTED)) == 1


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({"came_from": AT.format(9), "says": AT.format(2)}, f"the node is at {AT.format(2)}, the worker registered"),
        ({"came_from": "unknown", "says": AT.format(2)}, "the worker registered from 0.0.0.0"),
        ({"came_from": AT.format(2), "hostname": "other"}, "the node's hostname is w1, the worker's other"),
    ],
)
def test_what_the_engine_does_not_show_is_not_believed(hosts: Hosts, claim: dict[str, str], why: str) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], **claim)
    assert not hosts.is_confirmed("w1")
    assert why in (hosts.worker("w1").swarm_node_trouble or "")


def test_a_node_that_the_swarm_does_not_have_is_waited_for_without_an_alert(hosts: Hosts) -> None:
    hosts.register("w1", "gone", AT.format(2))
    assert not hosts.is_confirmed("w1")
    assert hosts.worker("w1").swarm_node_trouble == "the swarm has no node gone"
    assert hosts.told(EventKind.NODE_REFUTED) == []


def test_a_confirmed_worker_that_says_another_node_is_checked_again(hosts: Hosts) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2))
    assert hosts.is_confirmed("w1")
    hosts.register("w1", hosts.fleet.nodes["w2"], AT.format(2))
    assert hosts.worker("w1").confirmed_node is None
    assert not hosts.is_confirmed("w1")
    hosts.register("w2", hosts.fleet.nodes["w2"], AT.format(3))
    assert hosts.is_confirmed("w2")


def test_what_runs_on_a_worker_is_moved_off_it_whatever_it_says_by_now(hosts: Hosts) -> None:
    for number, name in enumerate(("w1", "w2"), 2):
        hosts.register(name, hosts.fleet.nodes[name], AT.format(number))
        assert hosts.is_confirmed(name)
    hosts.fleet.deploy("shop", to="w1")
    hosts.register("w1", hosts.fleet.nodes["head"], AT.format(2))
    assert not hosts.is_confirmed("w1")
    drains.drain(hosts.context, [hosts.fleet.ids["w1"]], TESTS, DrainOptions())
    look(hosts.context)
    hosts.fleet.settle()
    assert hosts.fleet.running() == {"shop": ["w2"]}
    availability = {name: hosts.fleet.engine.nodes[node].availability for name, node in hosts.fleet.nodes.items()}
    assert availability == {"head": "active", "w1": "pause", "w2": "active"}


def test_a_removed_worker_loses_its_place_whatever_it_says_by_now(hosts: Hosts) -> None:
    node = hosts.fleet.nodes["w1"]
    hosts.register("w1", node, AT.format(2))
    assert hosts.is_confirmed("w1")
    hosts.register("w1", "nonsense", AT.format(2))
    assert not hosts.is_confirmed("w1")
    workers.remove(hosts.context, hosts.fleet.ids["w1"], TESTS)
    assert node not in hosts.fleet.engine.nodes


def test_a_node_whose_worker_came_back_from_elsewhere_takes_work_again_after_its_drain(hosts: Hosts) -> None:
    node = hosts.fleet.nodes["w1"]
    hosts.register("w1", node, AT.format(2))
    assert hosts.is_confirmed("w1")
    drains.drain(hosts.context, [hosts.fleet.ids["w1"]], TESTS, DrainOptions())
    look(hosts.context)
    hosts.fleet.settle()
    assert hosts.fleet.engine.nodes[node].availability != "active"
    hosts.fleet.engine.nodes[node] = replace(hosts.fleet.engine.nodes[node], address=AT.format(77))
    hosts.register("w1", node, AT.format(77), says=AT.format(2))
    assert hosts.is_confirmed("w1")
    drains.undrain(hosts.context, hosts.fleet.ids["w1"], TESTS)
    look(hosts.context)
    hosts.fleet.settle()
    assert hosts.fleet.engine.nodes[node].availability == "active"


def test_many_claims_that_are_not_true_are_one_alert(hosts: Hosts) -> None:
    for number in range(hosts.context.alerting.one_by_one + 1):
        hosts.register(f"w{number + 3}", hosts.fleet.nodes["head"], AT.format(1))
    assert len(hosts.told(EventKind.NODE_REFUTED)) == 0
    hosts.fleet.step()
    assert len(hosts.told(EventKind.NODE_REFUTED)) == hosts.context.alerting.one_by_one + 1
    assert [each.worker_id for each in alerts.since(hosts.context, 0) if each.kind == "node_refuted"] == [None]


def test_a_node_that_left_and_joined_anew_is_found_again(hosts: Hosts) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2))
    assert hosts.is_confirmed("w1")
    hosts.fleet.engine.remove_node(hosts.fleet.nodes["w1"])
    anew = hosts.fleet.engine.add_node("w1", AT.format(2))
    hosts.register("w1", anew, AT.format(2))
    assert hosts.is_confirmed("w1")
    assert hosts.worker("w1").swarm_node_id == anew


def test_a_host_that_has_left_its_swarm_is_no_node_of_it_and_what_ran_there_is_moved(hosts: Hosts) -> None:
    """Whose engine is away says nothing of a node, and keeps its own."""
    for number, name in enumerate(("w1", "w2"), 2):
        hosts.register(name, hosts.fleet.nodes[name], AT.format(number))
        assert hosts.is_confirmed(name)
    hosts.fleet.deploy("a", to="w1")
    hosts.register("w1", "", AT.format(2), metadata={"machineId": "w1", "containerCountKnown": False})
    assert hosts.is_confirmed("w1")
    hosts.fleet.engine.lose(hosts.fleet.nodes["w1"])
    hosts.register("w1", "", AT.format(2))
    assert (hosts.worker("w1").swarm_node_id, hosts.worker("w1").swarm_node_claim) == (None, None)
    hosts.fleet.step()
    hosts.fleet.connection.execute("UPDATE container_workers SET node_down_since = node_down_since - interval '61 s'")
    hosts.fleet.step()
    hosts.beat("w1")
    assert hosts.worker("w1").status == "unhealthy"
    assert "its host has left the swarm" in hosts.told(EventKind.STATUS_CHANGED)[-1][1]
    hosts.fleet.settle()
    assert hosts.fleet.where()["a"] == "w2"


def test_a_row_of_the_panels_is_confirmed_by_the_monitor_unless_it_names_a_manager(hosts: Hosts) -> None:
    hosts.fleet.add("old")
    assert hosts.is_confirmed("old")
    hosts.invite("head")
    hosts.fleet.connection.execute(
        "UPDATE container_workers SET hostname = 'head', ip_address = %s, swarm_node_id = %s WHERE name = 'head'",
        (AT.format(1), hosts.fleet.nodes["head"]),
    )
    assert not hosts.is_confirmed("head")


def test_an_administrator_says_what_the_engine_cannot_show(hosts: Hosts) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], "192.0.2.7")
    hosts.register("head", hosts.fleet.nodes["head"], AT.format(1))
    assert not hosts.is_confirmed("w1")
    for name in ("w1", "head"):
        node_claims.allow(hosts.context, hosts.fleet.ids[name], hosts.fleet.nodes[name], TESTS)
        assert hosts.is_confirmed(name)
    assert [name for name, _ in hosts.told(EventKind.NODE_ALLOWED)] == ["w1", "head"]
    hosts.register("w1", hosts.fleet.nodes["w2"], "192.0.2.7")
    assert not hosts.is_confirmed("w1")  # the word was about another node


def test_an_administrator_says_it_of_the_node_that_was_shown_alone(hosts: Hosts) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], "192.0.2.7")
    hosts.register("w1", hosts.fleet.nodes["head"], "192.0.2.7")
    with pytest.raises(Refused, match="claims another swarm node by now"):
        node_claims.allow(hosts.context, hosts.fleet.ids["w1"], hosts.fleet.nodes["w1"], TESTS)
    assert hosts.told(EventKind.NODE_ALLOWED) == []


def test_the_worker_beside_the_engine_is_its_node_though_that_manages_the_swarm(hosts: Hosts) -> None:
    hosts.invite("head")
    hosts.fleet.engine.own_node = hosts.fleet.nodes["head"]
    for _ in "once", "again":  # as each start of `skyctl up` says it
        node_claims.allow_own(hosts.context, hosts.fleet.ids["head"], TESTS)
    hosts.register("head", hosts.fleet.nodes["head"], "127.0.0.1")
    assert hosts.is_confirmed("head")
    assert len(hosts.told(EventKind.NODE_ALLOWED)) == 1


def test_what_a_drain_may_pause_is_looked_at_again_where_a_node_became_a_manager(hosts: Hosts) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2))
    assert hosts.is_confirmed("w1")
    hosts.fleet.engine.promote(hosts.fleet.nodes["w1"])
    drains.drain(hosts.context, [hosts.fleet.ids["w1"]], TESTS, DrainOptions())
    look(hosts.context)
    hosts.fleet.settle()
    assert hosts.fleet.engine.nodes[hosts.fleet.nodes["w1"]].availability == "active"


def test_a_host_takes_neither_a_pool_nor_a_region_from_an_administrator(hosts: Hosts) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2))
    workers.label(hosts.context, hosts.fleet.ids["w1"], TESTS, {"pool": "plain", "region": "eu"})
    claims = {"swarmNodeId": hosts.fleet.nodes["w1"], "machineId": "w1", "pool": "vault", "region": "us"}
    hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2), metadata=claims)
    metadata = hosts.worker("w1").metadata
    assert (metadata["pool"], metadata["region"]) == ("plain", "eu")
    assert (metadata["claimedPool"], metadata["claimedRegion"]) == ("vault", "us")


def test_a_host_gives_itself_no_pool_at_its_first_registration(hosts: Hosts) -> None:
    claims = {"swarmNodeId": hosts.fleet.nodes["w1"], "machineId": "w1", "pool": "vault"}
    hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2), metadata=claims)
    assert hosts.is_confirmed("w1")
    assert "pool" not in hosts.worker("w1").metadata
    with pytest.raises(Refused, match="finds no place"):
        hosts.fleet.deploy("safe", pool="vault")


def test_a_host_has_no_more_than_its_engine_says(hosts: Hosts) -> None:
    node = hosts.fleet.engine.add_node("small", AT.format(8), has=Capacity(2, 1024))
    invented = {"cpuCores": 1000, "memoryMb": 1_000_000, "diskGb": 100}
    hosts.register("small", node, AT.format(8), capacity=invented)
    assert hosts.is_confirmed("small")
    hosts.fleet.nodes["small"] = node
    for cores, memory in ((3, 100), (1, 2000)):
        with pytest.raises(Refused, match="finds no place"):
            hosts.fleet.deploy("big", cores=cores, memory=memory)
    hosts.fleet.deploy("fits", cores=2, memory=1000)
    assert hosts.fleet.running() == {"fits": ["small"]}


def test_an_engine_that_is_away_keeps_nothing_else_from_its_turn(hosts: Hosts) -> None:
    hosts.register("w1", hosts.fleet.nodes["w1"], AT.format(2))
    hosts.fleet.engine.unavailable = "away"
    assert hosts.fleet.claims() == []
    hosts.fleet.engine.unavailable = ""
    assert hosts.is_confirmed("w1")


def test_show_why_and_list_say_that_a_node_is_not_confirmed(hosts: Hosts, cli: Callable[..., Any]) -> None:
    hosts.register("thief", hosts.fleet.nodes["head"], AT.format(9))
    assert not hosts.is_confirmed("thief")
    for words in (["show", "thief"], ["why", "thief"], ["list"]):
        assert "not confirmed" in cli("workers", *words, COLUMNS="400").stdout
    assert "manager of the swarm" in cli("workers", "why", "thief", COLUMNS="400").stdout
    document = json.loads(cli("workers", "show", "thief", "-o", "json").stdout)
    assert document["swarmNodeTrouble"] == "the node is a manager of the swarm"
    assert document["swarmNodeId"] is None
