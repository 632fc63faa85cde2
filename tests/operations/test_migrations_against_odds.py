"""What must hold when the monitor's steps meet what people, the panel and the engine do at the same moment."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import EngineSpec
from skyctl.domain.errors import EngineRefused, EngineUnavailable, Refused, Superseded
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import drains, node_claims, services, workers
from skyctl.operations.monitor import services as services_monitor
from skyctl.operations.monitor import swarm as swarm_monitor
from skyctl.operations.shared import lookup
from skyctl.operations.shared.swarm_join import without_engine
from tests.operations.test_migrations import fleet, pass_time, states
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, eventually, look

__all__ = ["fleet"]


def again(fleet: Fleet, name: str, image: str) -> None:
    deploy_admin.deploy(fleet.context, TESTS, fleet.organization, ServiceSpec(name, image, Capacity(1, 512, 1)))


def images(fleet: Fleet) -> list[str]:
    return [each.image for each in fleet.engine.observe().services.values()]


def before_it_is_applied(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen after a deployment was written down and before the engine has it."""
    deploy = fleet.engine.deploy

    def later(spec: EngineSpec, version: int | None) -> str:
        monkeypatch.undo()
        act()
        return deploy(spec, version)

    monkeypatch.setattr(fleet.engine, "deploy", later)


def test_a_deployment_that_was_interrupted_is_applied_by_the_monitor(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.deploy("a", to="w1")

    def killed() -> None:
        raise EngineUnavailable("away")

    before_it_is_applied(fleet, monkeypatch, killed)
    with pytest.raises(EngineUnavailable):
        again(fleet, "a", "app:2")
    fleet.settle()
    assert fleet.services()["a"].status == "deploying", "the old container is not taken for the new one"
    pass_time(fleet, seconds=31)
    fleet.beat()
    fleet.settle()
    assert images(fleet) == ["app:2"]
    assert fleet.services()["a"].status == "running"


def test_a_bad_image_goes_back_to_the_one_before_with_all_that_was_wanted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.absent = {("*", "app:bad")}
    before_it_is_applied(fleet, monkeypatch, fleet.settle)
    spec = ServiceSpec("a", "app:bad", Capacity(2, 1024, 1), {"NEW": "1"})
    deploy_admin.deploy(fleet.context, TESTS, fleet.organization, spec)
    fleet.engine.settle()
    fleet.settle()
    found = fleet.services()["a"]
    assert (found.status, found.spec.image, found.spec.limits, found.spec.environment) == (
        "running",
        "app:1",
        Capacity(1, 512, 1),
        {},
    )
    again(fleet, "a", "app:3")
    fleet.settle()
    assert (fleet.services()["a"].status, images(fleet)) == ("running", ["app:3"])
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    assert fleet.where()["a"] != "w1"


def test_what_the_engine_refuses_is_not_tried_again(fleet: Fleet) -> None:
    fleet.engine.refuses = "port 80 is taken"
    with pytest.raises(EngineRefused, match="port 80 is taken"):
        again(fleet, "a", "app:1")
    fleet.engine.refuses = ""
    pass_time(fleet, minutes=5)
    fleet.beat()
    fleet.settle()
    assert fleet.engine.orders == []
    assert fleet.services()["a"].status == "failed"


def test_the_panels_own_deployments_are_not_started(fleet: Fleet, connection: psycopg.Connection) -> None:
    organization = fleet.organization.id
    for slug, status in (("one", "stopped"), ("two", "running"), ("three", "deploying")):
        [service] = (
            connection.execute(
                "INSERT INTO container_services (organization_id, name, slug, resource_limits) "
                "VALUES (%s, %s, %s, %s) RETURNING id",
                (organization, slug, slug, json.dumps({"cpu_cores": 1, "memory_mb": 512, "disk_gb": 10})),
            ).fetchone()
            or ()
        )
        [made] = (
            connection.execute(
                "INSERT INTO container_deployments (service_id, worker_id, image_tag, status, created_at) "
                "VALUES (%s, %s, 'v12', %s, now() - interval '3 d') RETURNING id",
                (service, fleet.ids["w1"], status),
            ).fetchone()
            or ()
        )
        connection.execute("UPDATE container_services SET current_deployment_id = %s WHERE id = %s", (made, service))
    fleet.settle()
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=1), force=True))
    pass_time(fleet, seconds=2)
    fleet.beat()
    fleet.settle()
    assert [verb for verb, _ in fleet.engine.orders] == ["set_availability"]


def test_a_worker_that_fails_after_its_drain_has_ended_loses_nothing(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.unhealthy = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=10)))
    fleet.settle()
    pass_time(fleet, seconds=11)
    fleet.beat()
    fleet.settle()
    assert drains.progress(fleet.context, [fleet.ids["w1"]])[0].left == ["a"]
    fleet.engine.unhealthy.clear()
    fleet.fail("w1")
    fleet.settle()
    assert fleet.where()["a"] != "w1"


def test_a_worker_that_has_joined_again_is_drained_all_the_same(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.engine.remove_node(fleet.nodes["w1"])
    fleet.nodes["w1"] = fleet.engine.add_node("w1")
    fleet.connection.execute(
        "UPDATE container_workers SET swarm_node_id = %s WHERE id = %s", (fleet.nodes["w1"], fleet.ids["w1"])
    )
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    assert states(fleet) == {"a": "completed"}


def test_a_target_that_leaves_the_swarm_is_not_waited_for(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.step()
    target = str(fleet.migrations()["a"].target_worker_name)
    fleet.engine.unhealthy = {(fleet.nodes[target], "app:1")}
    fleet.step()
    fleet.connection.execute("UPDATE container_workers SET swarm_node_id = NULL WHERE name = %s", (target,))
    for _ in range(4):
        pass_time(fleet, seconds=20)
        fleet.beat()
        fleet.settle()
    assert states(fleet) == {"a": "completed"}
    assert fleet.where()["a"] not in ("w1", target)


def test_a_service_that_is_removed_while_it_is_deployed_leaves_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_it_is_applied(fleet, monkeypatch, lambda: services.remove(fleet.context, fleet.services()["a"].id, TESTS))
    with pytest.raises(Superseded, match="a was removed while app:1 was deployed"):
        again(fleet, "a", "app:1")
    fleet.settle()
    assert images(fleet) == []
    for name in ("w1", "w2", "w3"):
        workers.check_removable(fleet.context, lookup.find_worker(fleet.context, name))


def test_a_node_that_runs_what_is_not_ours_stays_in_the_swarm(fleet: Fleet) -> None:
    fleet.engine.deploy(EngineSpec("theirs", "net", "theirs", fleet.nodes["w1"], "app:1", Capacity(), {}, {}), None)
    fleet.engine.settle()
    assert "theirs" in workers.remove(fleet.context, fleet.ids["w1"], TESTS)[1]
    assert fleet.nodes["w1"] in fleet.engine.nodes


@pytest.mark.parametrize("engine_is_here", [True, False], ids=["with-the-engine", "by-the-monitor"])
def test_a_node_that_stays_takes_containers_again_if_it_was_closed_by_us(fleet: Fleet, engine_is_here: bool) -> None:
    node = fleet.nodes["w1"]
    fleet.engine.promote(node)
    node_claims.allow(fleet.context, fleet.ids["w1"], node, TESTS)
    fleet.settle()
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    assert fleet.engine.nodes[node].availability == "pause"
    context = fleet.context if engine_is_here else replace(fleet.context, engine=without_engine)
    stays = workers.remove(context, fleet.ids["w1"], TESTS)[1]
    if not engine_is_here:
        assert not stays, "it is the monitor that knows"
        [(_, _, stays)] = swarm_monitor.remove_nodes(fleet.term())
    assert stays == "it manages the swarm"
    assert fleet.engine.nodes[node].availability == "active"


def test_a_node_that_the_engine_does_not_remove_takes_containers_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_node_id: str) -> None:
        raise EngineRefused("not now")

    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    monkeypatch.setattr(fleet.engine, "remove_node", refuse)
    assert workers.remove(fleet.context, fleet.ids["w1"], TESTS)[1] == "not now"
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "active"


def test_a_node_that_is_a_workers_again_is_opened_for_it(fleet: Fleet) -> None:
    node = fleet.nodes["w1"]
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    workers.remove(replace(fleet.context, engine=without_engine), fleet.ids["w1"], TESTS)
    fleet.connection.execute(
        "UPDATE container_workers"
        " SET swarm_node_claim = %s, swarm_node_id = %s, swarm_node_confirmed = %s WHERE id = %s",
        (node, node, node, fleet.ids["w2"]),
    )
    assert swarm_monitor.remove_nodes(fleet.term())[0].stays == "it is a worker's again"
    assert fleet.engine.nodes[node].availability == "pause"
    fleet.settle()
    assert fleet.engine.nodes[node].availability == "active"


def test_a_node_that_somebody_paused_stays_paused(fleet: Fleet) -> None:
    fleet.engine.set_availability(fleet.nodes["w1"], "pause")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    drains.undrain(fleet.context, fleet.ids["w1"], TESTS)
    fleet.settle()
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "pause"


def test_names_that_would_be_known_as_the_same_are_refused(fleet: Fleet) -> None:
    again(fleet, "customer-portal-frontend-blue", "app:1")
    again(fleet, "customer-portal-frontend-green", "app:1")
    assert len(fleet.services()) == 2
    again(fleet, "shop", "app:1")
    with pytest.raises(Refused, match="would be known as shop"):
        again(fleet, "Shop!", "app:1")


def test_a_drain_of_several_waits_for_heartbeats_and_never_they_for_it(fleet: Fleet, database_url: str) -> None:
    first, second = sorted((fleet.ids["w1"], fleet.ids["w2"]))
    beat = "UPDATE container_workers SET last_heartbeat_at = now() WHERE id = %s"
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(database_url) as batch, ThreadPoolExecutor() as administrator:
        batch.execute(beat, (second,))
        drained = administrator.submit(drains.drain, fleet.context, [first, second], TESTS)
        eventually(lambda: fleet.connection.execute(waiting).fetchone() == (1,))
        batch.execute(beat, (first,))
        batch.commit()
        assert all(worker.id in (first, second) for worker in drained.result())
    assert fleet.connection.execute(
        "SELECT count(*) FROM container_workers WHERE drain_requested_at IS NOT NULL"
    ).fetchone() == (2,)


def test_only_what_is_on_its_way_is_checked_between_the_checks_of_all(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    again(fleet, "b", "app:1")
    term = fleet.term()
    current = fleet.services()["a"].current
    assert current
    fleet.engine.stop(str(current.swarm_service_id))
    fleet.engine.settle()
    services_monitor.reconcile_services(term, all_of_them=False)
    assert {name: each.status.value for name, each in fleet.services().items()} == {"a": "running", "b": "running"}
    services_monitor.reconcile_services(term, all_of_them=True)
    assert fleet.services()["a"].status == "stopped"
    look(fleet.context)


def test_of_two_containers_that_the_swarm_keeps_of_one_service_one_ends(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    doubled = fleet.services()["a"].current
    assert doubled
    fleet.engine.double(str(doubled.swarm_service_id))
    fleet.engine.settle()
    assert fleet.running() == {"a": ["w1", "w1"], "b": ["w1"]}
    before = list(fleet.engine.orders)
    fleet.settle()
    assert fleet.running() == {"a": ["w1"], "b": ["w1"]}
    orders = fleet.engine.orders[len(before) :]
    assert orders == [("move", doubled.swarm_service_id), ("write", doubled.swarm_service_id)], "once, without a trace"
    [kept] = fleet.engine.observe([str(doubled.swarm_service_id)]).services.values()
    current = fleet.services()["a"].current
    assert current
    assert [task.container_id for task in kept.tasks if task.state == "running"] == [current.container_id]


def test_a_second_container_that_the_engine_refuses_to_end_keeps_no_other_service_from_its_turn(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    doubled, stopped = fleet.services()["a"].current, fleet.services()["b"].current
    assert doubled
    assert stopped
    fleet.engine.double(str(doubled.swarm_service_id))
    fleet.engine.stop(str(stopped.swarm_service_id))
    fleet.engine.settle()
    fleet.engine.refuses = "the raft has no leader"
    fleet.settle()
    assert fleet.services()["b"].status == "stopped"
    assert fleet.running()["a"] == ["w1", "w1"]
    fleet.engine.refuses = ""
    fleet.settle()
    assert fleet.running()["a"] == ["w1"]
