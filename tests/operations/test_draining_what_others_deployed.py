"""A drain empties its worker of what the swarm placed there, too, whoever deployed it, and leaves no trace of that."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from skyctl.domain.drains import BY_SWARM, DrainOptions, DrainProgress
from skyctl.domain.engine import Document
from skyctl.operations.admin import drain_plans, drains, migrations, swarm_orders, swarm_services
from skyctl.operations.monitor import migrations as migrations_monitor
from skyctl.operations.monitor import orders
from skyctl.operations.monitor import services as services_monitor
from skyctl.operations.monitor.drains import LOOK_SECONDS
from tests.operations.fleets import fleet_of
from tests.support.fake_placed import global_, replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user, look


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(database_url, connection, "w1", "w2", "w3") as fleet:
        add_user(connection)
        yield fleet


def drain(fleet: Fleet, options: DrainOptions = DrainOptions(), worker: str = "w1") -> DrainProgress:
    drains.drain(fleet.context, [fleet.ids[worker]], TESTS, options)
    fleet.settle()
    return progress(fleet, worker)


def progress(fleet: Fleet, worker: str = "w1") -> DrainProgress:
    [found] = drains.progress(fleet.context, [fleet.ids[worker]])
    return found


def undrain(fleet: Fleet, worker: str = "w1") -> None:
    drains.undrain(fleet.context, fleet.ids[worker], TESTS)
    look(fleet.context)
    fleet.settle()


def spec(fleet: Fleet, service_id: str) -> object:
    document = fleet.engine.read(service_id)
    assert document
    return document.spec


def events(fleet: Fleet, kind: str) -> list[str]:
    rows = fleet.connection.execute("SELECT reason FROM worker_events WHERE kind = %s ORDER BY seq", (kind,))
    return [reason for (reason,) in rows]


def test_every_replica_leaves_in_one_migration_and_what_runs_elsewhere_is_not_touched(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=6))
    before, untouched = spec(fleet, web), tasks_off(fleet, web, "w1")
    assert fleet.running() == {"web": ["w1", "w1", "w2", "w2", "w3", "w3"]}
    found = drain(fleet)
    assert (found.is_empty, found.moved, found.others) == (True, 1, [])
    assert fleet.running() == {"web": ["w2", "w2", "w2", "w3", "w3", "w3"]}
    assert untouched <= tasks_off(fleet, web, "w1")
    assert spec(fleet, web) == before, "nothing of ours is left in it"
    [migration] = migrations.list_migrations(fleet.context).migrations
    assert (migration.service_name, migration.state, migration.cause) == ("web", "completed", "drain")
    assert events(fleet, "migration_completed")[0].startswith("web: it runs on w")
    undrain(fleet)
    assert spec(fleet, web) == before


def test_between_two_looks_at_its_node_a_drain_goes_on_with_what_it_has_found(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    look(fleet.context)
    term = fleet.term()
    services_monitor.reconcile_services(term, all_of_them=False)
    without = migrations_monitor.reconcile_migrations(term, looks=False)
    assert (without.events, without.next_seconds) == ([], LOOK_SECONDS), "it is not taken for empty"
    migrations_monitor.reconcile_migrations(term)
    for _ in range(30):
        migrations_monitor.reconcile_migrations(term, looks=False)
    assert "w1" not in fleet.running()["web"]
    assert events(fleet, "migration_completed")
    assert not progress(fleet).is_empty
    migrations_monitor.reconcile_migrations(term)
    assert progress(fleet).is_empty


def test_what_is_counted_on_a_node_is_noted_by_looks_at_it_alone(fleet: Fleet) -> None:
    """A step between two looks saw no container there, noted that, and began the count anew: a drain of what cannot
    leave did not end while anything else was moving."""
    fleet.engine.place(replicated("stays", replicas=3, Labels={"skyctl.move": "never"}))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    counted = "SELECT drain_containers, drain_counted_at FROM container_workers WHERE name = 'w1'"
    before = fleet.connection.execute(counted).fetchone()
    assert before
    assert before[0] == 1
    migrations_monitor.reconcile_migrations(fleet.term(), looks=False)
    migrations_monitor.reconcile_migrations(fleet.term())
    assert fleet.connection.execute(counted).fetchone() == before


def tasks_off(fleet: Fleet, service_id: str, worker: str) -> set[str]:
    found = fleet.engine.observe([service_id]).services[service_id]
    return {task.id for task in found.tasks if task.node_id != fleet.nodes[worker]}


def test_it_is_moved_start_first_and_its_owners_order_is_given_back(fleet: Fleet) -> None:
    update = {"Parallelism": 2, "Order": "stop-first", "FailureAction": "rollback", "MaxFailureRatio": 0.5}
    web = fleet.engine.place(replicated("web", UpdateConfig=update))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    orders, least = set(), 1
    for _ in range(30):
        fleet.step()
        document = fleet.engine.read(web)
        assert document
        orders.add(document.spec["UpdateConfig"]["Order"])
        least = min(least, sum(task.state == "running" for task in fleet.engine.observe([web]).services[web].tasks))
    assert orders == {"start-first", "stop-first"}
    assert least == 1, "one runs at any moment"
    assert progress(fleet).is_empty
    assert spec(fleet, web) == {**replicated("web"), "UpdateConfig": update}


def test_what_runs_on_every_node_stops_last_and_is_back_with_the_worker(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web"))
    fleet.engine.place(global_("logs"))
    fleet.deploy("ours", to="w1")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    seen = []
    while not progress(fleet).is_over:
        fleet.step()
        seen.append({name for name, where in fleet.running().items() if "w1" in where})
    assert seen[-1] == set()
    assert {"logs"} in seen, "it ran on when the others had gone"
    assert not any("logs" not in here for here in seen if here)
    assert progress(fleet).is_empty
    undrain(fleet)
    assert fleet.running()["logs"] == ["w1", "w2", "w3"]
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "active"


def test_keep_global_leaves_it(fleet: Fleet) -> None:
    fleet.engine.place(global_("logs"))
    found = drain(fleet, DrainOptions(keep_global=True))
    assert (found.is_empty, found.others) == (False, ["logs"])
    assert fleet.running()["logs"] == ["w1", "w2", "w3"]


def placed(name: str, **placement: object) -> Document:
    document = replicated(name)
    document["TaskTemplate"]["Placement"] = placement
    return document


def test_what_no_other_node_would_take_stays_as_it_is_and_is_named(fleet: Fleet) -> None:
    full = replicated("full", replicas=3)
    full["TaskTemplate"]["Placement"] = {"MaxReplicas": 1}
    here = placed("here", Constraints=["node.hostname==w1"])
    ids = [fleet.engine.place(document) for document in (full, here)]
    before = {service_id: fleet.engine.read(service_id) for service_id in ids}
    found = drain(fleet)
    assert (found.is_over, found.is_empty, sorted(found.others)) == (True, False, ["full", "here"])
    assert sorted(found.reasons) == [
        "full: it stays: no other node would take it (w2: it has as many of its containers as a node may; "
        "w3: it has as many of its containers as a node may)",
        "here: it stays: no other node would take it (w2: scheduling constraints not satisfied: node.hostname==w1; "
        "w3: scheduling constraints not satisfied: node.hostname==w1)",
    ]
    assert {service_id: fleet.engine.read(service_id) for service_id in ids} == before, "it was not touched"


def test_what_keeps_data_there_stays_unless_it_may_be_left_behind(fleet: Fleet) -> None:
    """Ours as well, whatever was mounted since it was adopted."""
    data = replicated("data")
    data["TaskTemplate"]["ContainerSpec"]["Mounts"] = [{"Type": "volume", "Source": "pg", "Target": "/data"}]
    fleet.engine.place(data)
    fleet.engine.place({**replicated("kept"), "Labels": {"skyctl.move": "never"}})
    fleet.deploy("ours", to="w1")
    [ours] = [each.id for each in fleet.engine.observe().services.values() if each.name.endswith("ours")]
    fleet.engine.mount(ours, "/srv/ours")
    found = drain(fleet)
    assert (found.is_over, found.left, sorted(found.others)) == (True, ["ours"], ["data", "kept"])
    assert sorted(found.reasons) == [
        "data: it stays: it keeps data on its node: pg",
        "kept: it stays: its label skyctl.move says never",
        "ours: it stays: it keeps data on its node: /srv/ours",
    ]
    found = drain(fleet, DrainOptions(move_local_data=True))
    assert (found.is_over, found.left, found.others) == (True, [], ["kept"])


def test_a_plan_says_how_each_would_move_and_what_would_be_left(fleet: Fleet) -> None:
    data = replicated("data")
    data["TaskTemplate"]["ContainerSpec"]["Mounts"] = [{"Type": "volume", "Source": "pg", "Target": "/data"}]
    for document in (data, global_("logs"), replicated("web", replicas=6), placed("here", Constraints=["node.id!=x"])):
        fleet.engine.place(document)
    fleet.deploy("ours", to="w1")
    before = fleet.running()

    def plan(options: DrainOptions = DrainOptions()) -> dict[str, tuple[str, str | None, int]]:
        found = drain_plans.plan(fleet.context, [fleet.ids["w1"]], options)
        return {each.service_name: (each.way, each.target, each.containers) for each in found}

    planned = plan()
    assert planned.pop("ours") in (("start-first", "w2", 1), ("start-first", "w3", 1))
    assert planned == {
        "data": ("stays", None, 1),
        "logs": ("stops last", None, 1),
        "web": ("start-first", BY_SWARM, 2),
        **({"here": ("start-first", BY_SWARM, 1)} if "w1" in before["here"] else {}),
    }
    assert plan(DrainOptions(keep_global=True, move_local_data=True))["logs"] == ("stays", None, 1)
    assert plan(DrainOptions(move_local_data=True))["data"] == ("start-first", BY_SWARM, 1)
    assert fleet.running() == before


def test_a_failed_workers_data_is_not_started_anew_elsewhere_without_a_word(fleet: Fleet) -> None:
    fleet.deploy("ours", to="w1")
    [ours] = fleet.engine.observe().services
    fleet.engine.mount(ours, "/srv/ours")
    fleet.fail("w1")
    fleet.settle()
    assert fleet.where() == {"ours": "w1"}
    assert events(fleet, "migration_failed") == ["ours: it stays: it keeps data on its node: /srv/ours"]


def test_what_two_containers_would_write_to_is_moved_stop_first(fleet: Fleet) -> None:
    shared = replicated("shared")
    nfs = {"DriverConfig": {"Name": "local", "Options": {"type": "nfs", "o": "addr=nas,rw", "device": ":/x"}}}
    volume = {"Type": "volume", "Source": "s", "Target": "/s", "VolumeOptions": nfs}
    shared["TaskTemplate"]["ContainerSpec"]["Mounts"] = [volume]
    fleet.engine.place(shared)
    fleet.engine.place({**replicated("said"), "Labels": {"skyctl.move": "stop-first"}})
    orders: dict[str, set[str]] = {}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    for _ in range(30):
        fleet.step()
        for service in fleet.engine.observe().services.values():
            document = fleet.engine.read(service.id)
            if document and "UpdateConfig" in document.spec:
                orders.setdefault(service.name, set()).add(document.spec["UpdateConfig"]["Order"])
    assert orders == {"shared": {"stop-first"}, "said": {"stop-first"}}
    assert progress(fleet).is_empty


def test_an_image_that_cannot_start_elsewhere_leaves_the_old_container_running(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web"))
    [task] = fleet.engine.observe([web]).services[web].tasks
    fleet.engine.absent |= {(fleet.nodes["w2"], "app:1"), (fleet.nodes["w3"], "app:1")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    for _ in range(60):
        fleet.step()
        fleet.context.db.ahead += timedelta(seconds=30)
        fleet.beat()
    assert progress(fleet).others == ["web"]
    assert [each.id for each in fleet.engine.observe([web]).services[web].tasks if each.state == "running"] == [task.id]
    assert spec(fleet, web) == replicated("web")


def test_undrain_takes_back_what_has_not_moved(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web"))
    migrations.pause(fleet.context, TESTS, None, None)
    assert fleet.running() == {"web": ["w1"]}
    drain(fleet)
    assert fleet.running() == {"web": ["w1"]}
    undrain(fleet)
    migrations.resume(fleet.context, TESTS)
    fleet.settle()
    assert fleet.running() == {"web": ["w1"]}
    [migration] = migrations.list_migrations(fleet.context).migrations
    assert (migration.state, migration.reason) == ("cancelled", "the drain was cancelled")
    assert spec(fleet, web) == replicated("web")


def test_what_its_owner_changes_in_between_is_his_and_stays(fleet: Fleet) -> None:
    """As `docker stack deploy` does, which writes the whole specification anew, and `docker service update`, which
    changes what it finds."""
    web, api = fleet.engine.place(replicated("web")), fleet.engine.place(replicated("api"))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    where = {"web": fleet.running()["web"], "api": fleet.running()["api"]}
    while not any("migration_started" in event.kind for event in fleet.step()):
        pass
    fleet.step()
    fleet.engine.change(web, TaskTemplate=replicated("web", image="app:2")["TaskTemplate"], UpdateConfig={"Delay": 7})
    document = fleet.engine.read(api)
    assert document
    fleet.engine.change(api, Labels={"owner": "said"})
    fleet.settle()
    assert progress(fleet).is_empty, where
    assert spec(fleet, web) == {**replicated("web", image="app:2"), "UpdateConfig": {"Delay": 7}}
    assert spec(fleet, api) == {**replicated("api"), "Labels": {"owner": "said"}}


def test_several_drains_at_once_move_a_service_off_all_of_them(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=3))
    drains.drain(fleet.context, [fleet.ids["w1"], fleet.ids["w2"]], TESTS)
    fleet.settle()
    assert progress(fleet, "w1").is_empty
    assert progress(fleet, "w2").is_empty
    assert fleet.running() == {"web": ["w3", "w3", "w3"]}
    assert spec(fleet, web) == replicated("web", replicas=3)


def test_a_monitor_that_dies_at_any_moment_leaves_nothing_of_ours_behind(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is of a term of its own; the order to the engine is given, and what came of it is not written."""
    web = fleet.engine.place(replicated("web", replicas=2))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    original, died = fleet.engine.write, 0

    def write_and_die(service_id: str, version: int, document: dict[str, object]) -> None:
        nonlocal died
        original(service_id, version, document)
        died += 1
        if died % 2:
            raise RuntimeError

    monkeypatch.setattr(fleet.engine, "write", write_and_die)
    for _ in range(60):
        try:
            fleet.step()
        except RuntimeError:
            continue
    assert died >= 2
    assert progress(fleet).is_empty
    assert spec(fleet, web) == replicated("web", replicas=2)


def test_a_node_that_is_set_to_drain_in_the_swarm_is_a_drain_asked_for(fleet: Fleet) -> None:
    """What every administrator of a swarm does: ours would be down for good, since the swarm may not move them."""
    fleet.deploy("ours", to="w1")
    fleet.engine.set_availability(fleet.nodes["w1"], "drain")
    fleet.engine.evict(fleet.nodes["w1"])
    fleet.settle()
    assert fleet.where()["ours"] in ("w2", "w3")
    assert progress(fleet).is_empty
    assert events(fleet, "drain_requested") == ["its node was set to drain in the swarm"]
    fleet.engine.set_availability(fleet.nodes["w1"], "active")
    services_monitor.reconcile_services(fleet.term(), all_of_them=False)  # the nodes are looked at less often
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "active"
    fleet.settle()
    assert progress(fleet).worker.drain_requested_at is None
    assert events(fleet, "drain_cancelled") == ["its node was set to active in the swarm"]
    assert events(fleet, "drain_requested") == ["its node was set to drain in the swarm"], "and it stays so"


def test_undrain_opens_a_node_that_was_set_to_drain_in_the_swarm(fleet: Fleet) -> None:
    fleet.engine.set_availability(fleet.nodes["w1"], "drain")
    fleet.settle()
    undrain(fleet)
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "active"
    assert progress(fleet).worker.drain_requested_at is None
    assert len(events(fleet, "drain_requested")) == 1


def test_an_exclusion_of_the_owners_own_is_not_taken_for_one_of_ours_later(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web"))
    drain(fleet)
    undrain(fleet)
    placed_off = {**replicated("web")["TaskTemplate"], "Placement": {"Constraints": [f"node.id!={fleet.nodes['w1']}"]}}
    fleet.engine.change(web, TaskTemplate=placed_off)
    fleet.settle()
    [where] = fleet.running()["web"]
    drain(fleet, worker=where)
    assert fleet.running()["web"] != [where]
    assert spec(fleet, web) == {**replicated("web"), "TaskTemplate": placed_off}


def test_an_owners_change_in_the_middle_of_a_move_can_be_rolled_back(fleet: Fleet) -> None:
    """He changed what he found, with our constraint in it: the swarm's former specification is no way back."""
    web = fleet.engine.place(replicated("web"))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    while not any("migration_started" in event.kind for event in fleet.step()):
        pass
    fleet.step()
    document = fleet.engine.read(web)
    assert document
    fleet.engine.write(web, document.version, {**document.spec, "Labels": {"owner": "said"}})
    fleet.settle()
    assert spec(fleet, web) == {**replicated("web"), "Labels": {"owner": "said"}}
    assert swarm_orders.way_back(fleet.context, swarm_services.find(fleet.context, "web"))


def test_a_job_is_not_stopped_with_what_runs_on_every_node(fleet: Fleet) -> None:
    fleet.engine.place(global_("logs"))
    job = {**replicated("job"), "Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}}
    fleet.engine.place(job)
    assert fleet.running()["job"] == ["w1"]
    found = drain(fleet)
    assert (found.is_over, sorted(found.others)) == (True, ["job", "logs"])
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "pause"


def test_who_drains_what_the_swarm_drains_wishes_so_himself(fleet: Fleet) -> None:
    fleet.engine.set_availability(fleet.nodes["w1"], "drain")
    fleet.settle()
    drain(fleet)
    fleet.engine.set_availability(fleet.nodes["w1"], "active")
    fleet.settle()
    assert progress(fleet).worker.drain_requested_at is not None


def test_a_drain_that_was_cancelled_is_not_called_empty(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web"))
    migrations.pause(fleet.context, TESTS, None, None)
    drain(fleet)
    undrain(fleet)
    assert (progress(fleet).is_over, progress(fleet).is_empty) == (True, False)


def test_what_is_forgotten_of_services_that_are_gone(fleet: Fleet) -> None:
    web, api = fleet.engine.place(replicated("web")), fleet.engine.place(replicated("api", replicas=3))
    drain(fleet)
    fleet.engine.remove(web)
    orders.forget_gone(fleet.term())
    kept = fleet.connection.execute("SELECT swarm_service_id FROM owner_specs").fetchall()
    assert kept == [(api,)]
