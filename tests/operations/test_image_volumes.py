"""What an image keeps in a volume that it declares itself, no service says: where agents have told of it, it stays with
its node as any other local data."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from skyctl.domain.drains import DrainOptions, DrainProgress
from skyctl.domain.states import EvenIf
from skyctl.operations.admin import adoption, drain_plans, drains, swarm_services
from skyctl.store import workers
from tests.operations.fleets import fleet_of
from tests.support.fake_placed import replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user

PLACE = "/data (a volume of its image)"
STAYS = f"it keeps data on its node: {PLACE}"
EMPTY = f"it starts empty: what it keeps on its node stays behind: {PLACE}"


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        add_user(connection)
        yield fleet


def tell(fleet: Fleet, worker: str, volumes: object) -> None:
    """The worker's agent says this of its image volumes."""
    stored = (json.dumps(volumes), fleet.ids[worker])
    fleet.connection.execute("UPDATE container_workers SET image_volumes = %s WHERE id = %s", stored)


def ours(fleet: Fleet, name: str, **more: Any) -> str:
    fleet.deploy(name, to="w1", **more)
    [found] = [each.id for each in fleet.engine.observe().services.values() if each.name.endswith(name)]
    return found


def drain(fleet: Fleet, options: DrainOptions = DrainOptions()) -> DrainProgress:
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, options)
    fleet.settle()
    [found] = drains.progress(fleet.context, [fleet.ids["w1"]])
    return found


def events(fleet: Fleet, kind: str) -> Sequence[str]:
    rows = fleet.connection.execute("SELECT reason FROM worker_events WHERE kind = %s ORDER BY seq", (kind,))
    return [reason for (reason,) in rows]


def test_a_drain_leaves_it_and_says_why_as_its_plan_did(fleet: Fleet) -> None:
    db, web = ours(fleet, "db"), fleet.engine.place(replicated("web", replicas=2))
    tell(fleet, "w1", {db: ["/data"], web: ["/data"]})
    planned = drain_plans.plan(fleet.context, [fleet.ids["w1"]])
    assert {each.service_name: (each.way, each.reason) for each in planned} == {
        "db": ("stays", STAYS),
        "web": ("stays", STAYS),
    }
    found = drain(fleet)
    assert (found.is_over, found.left, found.others) == (True, ["db"], ["web"])
    assert sorted(found.reasons) == [f"db: it stays: {STAYS}", f"web: it stays: {STAYS}"]


def test_no_host_holds_back_what_leaves_another_one(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=2))
    assert fleet.running() == {"web": ["w1", "w2"]}
    tell(fleet, "w2", {web: ["/lie"]})
    [planned] = drain_plans.plan(fleet.context, [fleet.ids["w1"]])
    assert planned.way == "start-first"
    assert drain(fleet).is_empty


def test_it_moves_where_its_data_may_be_left_behind_and_that_is_said(fleet: Fleet) -> None:
    db, web = ours(fleet, "db"), fleet.engine.place(replicated("web", replicas=2))
    tell(fleet, "w1", {db: ["/data"], web: ["/data"]})
    options = DrainOptions(move_local_data=True)
    planned = drain_plans.plan(fleet.context, [fleet.ids["w1"]], options)
    assert [each.way for each in planned] == ["start-first", "start-first"]
    assert all(each.reason.endswith(f"what it keeps on its node stays behind: {PLACE}") for each in planned)
    found = drain(fleet, options)
    assert (found.is_empty, found.left, found.others) == (True, [], [])
    started = events(fleet, "migration_started")
    assert len(started) == 2
    assert all(reason.endswith(EMPTY) for reason in started), started


def test_after_a_failure_it_stays_unless_its_label_says_otherwise(fleet: Fleet) -> None:
    db, cache = ours(fleet, "db"), ours(fleet, "cache", labels={"skyctl.move": "start-first"})
    tell(fleet, "w1", {db: ["/data"], cache: ["/data"]})
    fleet.fail("w1")
    fleet.settle()
    assert fleet.where() == {"db": "w1", "cache": "w2"}
    assert events(fleet, "migration_failed") == [f"db: it stays: {STAYS}"]
    [started] = events(fleet, "migration_started")
    assert started.startswith("cache: to w2")
    assert started.endswith(EMPTY)


def test_what_the_swarm_starts_elsewhere_by_itself_is_said_to_start_without_it(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=1))
    assert fleet.running() == {"web": ["w1"]}
    tell(fleet, "w1", {web: ["/data"]})
    fleet.fail("w1")
    fleet.settle()
    left = f"what it keeps on its node stays behind: {PLACE}"
    assert events(fleet, "migration_started") == [f"web: its node is down: the swarm starts it elsewhere; {left}"]
    [completed] = events(fleet, "migration_completed")
    assert completed.endswith(left)


def test_services_that_keep_nothing_start_without_a_word_of_it(fleet: Fleet) -> None:
    ours(fleet, "plain")
    assert drain(fleet).is_empty
    assert "empty" not in events(fleet, "migration_started")[0]


@pytest.mark.parametrize(
    ("worker", "told"),
    [
        ("w1", None),
        ("w1", {}),
        ("w1", {"another": ["/data"]}),
        ("w2", "of it"),
        ("w1", ["odd"]),
        ("w1", {"of it": "odd"}),
        ("w1", {"of it": [7, "odd", "/\n"]}),
    ],
)
def test_what_no_agent_of_its_node_says_holds_nothing_back(fleet: Fleet, worker: str, told: object) -> None:
    """An older agent says nothing, one of another node nothing that counts, and odd rows hold up nobody."""
    db = ours(fleet, "db")
    told = {db: ["/data"]} if told == "of it" else told
    tell(fleet, worker, {db: told["of it"]} if isinstance(told, dict) and "of it" in told else told)
    assert drain(fleet).is_empty
    assert fleet.where() == {"db": "w2"}


def test_adopting_it_needs_a_word(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web"))
    [node_id] = [task.node_id for task in fleet.engine.observe([web]).services[web].tasks]
    [worker] = [name for name, node in fleet.nodes.items() if node == node_id]
    tell(fleet, worker, {web: ["/data"]})
    [found] = adoption.adoptable(fleet.context)
    assert (found.obstacle, found.even_if) == (
        f"it keeps data on its node, which would not move with it: {PLACE}",
        EvenIf.LOCAL_DATA,
    )


def test_it_is_shown_with_what_is_mounted(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=2))
    tell(fleet, "w2", {web: ["/data"]})
    details = swarm_services.details(fleet.context, swarm_services.find(fleet.context, "web"))
    assert [mount.place for mount in details.service.engine.mounts] == [PLACE]
    [listed] = swarm_services.everything(fleet.context)
    assert [mount.place for mount in listed.engine.mounts] == [PLACE]


def test_of_a_service_no_more_is_read_than_of_it(fleet: Fleet) -> None:
    """A node may tell of a hundred paths of others."""
    web = fleet.engine.place(replicated("web", replicas=2))
    node = fleet.nodes["w1"]
    tell(fleet, "w1", {web: ["/data"]} | {f"other{number}": ["/data"] for number in range(99)})
    tell(fleet, "w2", {"other": ["/data"]})
    with fleet.context.db.transaction() as tx:
        assert workers.image_volumes(tx, fleet.nodes.values(), [web]) == {node: {web: ["/data"]}}
