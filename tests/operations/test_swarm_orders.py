"""Scaled, restarted, rolled back: what the swarm runs, whoever deployed it, and nothing else of it changes."""

import json
from typing import Any

import pytest

from skyctl.cli import views
from skyctl.documents import manifest
from skyctl.documents.swarm import swarm_details_document
from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import STACK_LABEL, Document
from skyctl.domain.errors import Refused, ServiceNotFound, ValidationError
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import adoption, drains, swarm_orders, swarm_services
from skyctl.operations.admin import deploy as deploy_admin
from tests.operations.test_migrations import fleet
from tests.support.fake_placed import global_, replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS

__all__ = ["fleet"]


def known(fleet: Fleet, name: str) -> swarm_services.Known:
    return swarm_services.find(fleet.context, name)


def settle(fleet: Fleet) -> None:
    fleet.engine.settle()
    fleet.settle()


def containers(fleet: Fleet, name: str) -> set[str]:
    return {task.id for task in known(fleet, name).engine.tasks if task.state == "running"}


def document(fleet: Fleet, name: str) -> Document:
    found = fleet.engine.read(known(fleet, name).engine.id)
    assert found
    return found.spec


def deploy(fleet: Fleet, image: str, **more: Any) -> None:
    deploy_admin.deploy(fleet.context, TESTS, fleet.organization, ServiceSpec("a", image, Capacity(1, 512, 1), **more))
    settle(fleet)


def roll_back(fleet: Fleet, name: str) -> list[str]:
    """Roll a service back; return what that changes."""
    way = swarm_orders.way_back(fleet.context, known(fleet, name))
    swarm_orders.roll_back(fleet.context, TESTS, known(fleet, name), way)
    return [change.text for change in way.changes]


def test_any_service_is_found_by_its_names_and_ids(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    web = fleet.engine.place(replicated("web"))
    ours = fleet.services()["a"]
    assert known(fleet, "web").engine.id == web
    assert known(fleet, "web").managed is None
    for reference in ("a", str(ours.id), str(ours.id)[:8], f"org-{ours.organization_id}-a"):
        found = known(fleet, reference)
        assert (found.name, found.managed and found.managed.id) == ("a", ours.id)
    with pytest.raises(ServiceNotFound):
        known(fleet, "nobody")


def test_what_others_deployed_is_scaled_and_keeps_the_rest(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=2, Labels={"team": "x"}))
    before, spec = containers(fleet, "web"), document(fleet, "web")
    assert swarm_orders.scale(fleet.context, TESTS, known(fleet, "web"), 4)
    settle(fleet)
    assert before < containers(fleet, "web")
    assert document(fleet, "web") == {**spec, "Mode": {"Replicated": {"Replicas": 4}}}
    assert not swarm_orders.scale(fleet.context, TESTS, known(fleet, "web"), 4)


def test_what_has_no_number_of_containers_is_not_scaled(fleet: Fleet) -> None:
    fleet.engine.place(global_("everywhere"))
    with pytest.raises(Refused, match="everywhere has no number of containers: it is global"):
        swarm_orders.scale(fleet.context, TESTS, known(fleet, "everywhere"), 2)


def test_what_we_deployed_is_scaled_and_that_is_written_down(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    first = containers(fleet, "a")
    swarm_orders.scale(fleet.context, TESTS, known(fleet, "a"), 3)
    settle(fleet)
    assert first < containers(fleet, "a")
    assert fleet.services()["a"].spec.replicas == 3


def test_what_was_adopted_is_scaled_and_stays_adopted(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", Labels={"team": "x"}))
    adoption.adopt(fleet.context, TESTS, fleet.organization, adoption.adoptable(fleet.context))
    settle(fleet)
    first, spec = containers(fleet, "web"), document(fleet, "web")
    swarm_orders.scale(fleet.context, TESTS, known(fleet, "web"), 3)
    settle(fleet)
    now = fleet.services()["web"]
    assert (now.spec.replicas, now.spec.adopted, now.status) == (3, True, "running")
    assert first < containers(fleet, "web")
    assert document(fleet, "web")["TaskTemplate"]["ContainerSpec"] == spec["TaskTemplate"]["ContainerSpec"]
    with pytest.raises(Refused, match="adopted"):
        deploy_admin.deploy(
            fleet.context, TESTS, fleet.organization, manifest.spec(manifest.fields(now.spec) | {"replicas": 2})
        )


def test_what_says_where_it_may_be_has_one_container(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1", spread="x")
    with pytest.raises(ValidationError, match="spread: 'x'"):
        swarm_orders.scale(fleet.context, TESTS, known(fleet, "a"), 2)


@pytest.mark.parametrize("name", ["a", "web"])
def test_a_restart_makes_each_container_anew(fleet: Fleet, name: str) -> None:
    deploy(fleet, "app:1", replicas=2)
    fleet.engine.place(replicated("web", replicas=2))
    before = containers(fleet, name)
    swarm_orders.restart(fleet.context, TESTS, known(fleet, name))
    settle(fleet)
    after = containers(fleet, name)
    assert (len(after), before & after) == (2, set())
    assert fleet.services()["a"].status == "running"


def test_who_ordered_it_is_in_the_log(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=2))
    fleet.engine.write(web, known(fleet, "web").engine.version, {**document(fleet, "web"), "Labels": {"team": "y"}})
    swarm_orders.scale(fleet.context, TESTS, known(fleet, "web"), 4)
    swarm_orders.restart(fleet.context, TESTS, known(fleet, "web"))
    roll_back(fleet, "web")
    found = fleet.connection.execute(
        "SELECT actor, reason, details->>'swarmServiceId' FROM worker_events "
        "WHERE kind = 'service_ordered' ORDER BY seq"
    ).fetchall()
    done = ("scaled from 2 to 4", "restarted", "rolled back")
    assert found == [(TESTS.name, f"web: {each}", web) for each in done]


def test_what_others_deployed_goes_back_to_its_owners_version_after_moves(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", image="app:1", replicas=2))
    fleet.engine.change(web, **replicated("web", image="app:2", replicas=2))
    settle(fleet)
    for name in ("w1", "w2"):
        drains.drain(fleet.context, [fleet.ids[name]], TESTS, DrainOptions())
        settle(fleet)
        drains.undrain(fleet.context, fleet.ids[name], TESTS)
        settle(fleet)
    roll_back(fleet, "web")
    settle(fleet)
    assert document(fleet, "web") == replicated("web", image="app:1", replicas=2)


def test_what_its_owner_changed_after_a_move_goes_back_to_before_that(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", image="app:1", replicas=3))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions())
    settle(fleet)
    fleet.engine.change(web, **replicated("web", image="app:2", replicas=3))
    settle(fleet)
    roll_back(fleet, "web")
    settle(fleet)
    assert document(fleet, "web") == replicated("web", image="app:1", replicas=3)


def test_without_a_former_version_it_says_so(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.place(replicated("web"))
    for name in ("a", "web"):
        with pytest.raises(Refused, match=f"{name} was never changed by its owner"):
            roll_back(fleet, name)


def test_what_we_deployed_goes_back_by_a_deployment_wherever_it_was_moved(fleet: Fleet) -> None:
    deploy(fleet, "app:1", environment={"A": "1"})
    deploy(fleet, "app:2", environment={"A": "2"})
    drains.drain(fleet.context, [fleet.ids[str(fleet.where()["a"])]], TESTS, DrainOptions())
    settle(fleet)
    there = fleet.where()["a"]
    roll_back(fleet, "a")
    settle(fleet)
    spec = fleet.services()["a"].spec
    assert (spec.image, spec.environment, fleet.where()["a"]) == ("app:1", {"A": "1"}, there)
    roll_back(fleet, "a")
    settle(fleet)
    assert fleet.services()["a"].spec.image == "app:2"


def test_what_was_adopted_goes_back_and_stays_ours_where_it_is(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", image="app:1"))
    adoption.adopt(fleet.context, TESTS, fleet.organization, adoption.adoptable(fleet.context))
    settle(fleet)
    found = fleet.engine.read(web)
    assert found
    template = found.spec["TaskTemplate"]
    fleet.engine.write(
        web, found.version, {**found.spec, "TaskTemplate": {**template, "ContainerSpec": {"Image": "app:2"}}}
    )
    settle(fleet)
    drains.drain(fleet.context, [fleet.ids[str(fleet.where()["web"])]], TESTS, DrainOptions())
    settle(fleet)
    there = fleet.where()["web"]
    roll_back(fleet, "web")
    settle(fleet)
    assert known(fleet, "web").engine.image == "app:1"
    assert (fleet.where()["web"], fleet.services()["web"].status) == (there, "running")


def test_while_it_is_moved_nothing_of_it_is_changed(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions())
    while not any(each.started_at for each in fleet.migrations().values()):
        fleet.step()
    with pytest.raises(Refused, match="web is being moved off w1"):
        swarm_orders.restart(fleet.context, TESTS, known(fleet, "web"))
    with pytest.raises(Refused, match="web is being moved off w1"):
        swarm_orders.way_back(fleet.context, known(fleet, "web"))


def test_of_any_service_it_is_shown_what_runs_and_what_a_rollback_by_docker_would_do(fleet: Fleet) -> None:
    template = {
        "ContainerSpec": {"Image": "app:1", "Env": ["A=SECRET"], "Secrets": [{"SecretName": "key"}]},
        "Placement": {"Constraints": ["node.role==worker"]},
    }
    fleet.engine.place(replicated("web", replicas=2, TaskTemplate=template, Labels={STACK_LABEL: "shop"}))
    found = swarm_services.details(fleet.context, known(fleet, "web"))
    assert (found.service.running, found.service.wanted, found.service.engine.stack) == (2, 2, "shop")
    assert (found.variables, found.secrets, found.way_back) == (["A"], ["key"], "")
    document = swarm_details_document(found)
    assert document["constraints"] == ["node.role==worker"]
    assert "SECRET" not in str(document)
    assert "2 of 2 run" in str(views.swarm.running_rows(document))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions())
    settle(fleet)
    assert "skyctl services rollback" in swarm_services.details(fleet.context, known(fleet, "web")).way_back


def kept_as_former(fleet: Fleet, former: Document) -> swarm_orders.WayBack:
    """What `web`, which was moved, would go back to, where a row says that it was this before."""
    web = fleet.engine.place(replicated("web", image="app:2"))
    drains.drain(fleet.context, [fleet.ids[fleet.running()["web"][0]]], TESTS, DrainOptions())
    settle(fleet)
    fleet.connection.execute(
        "UPDATE owner_specs SET former = %s WHERE swarm_service_id = %s", (json.dumps(former), web)
    )
    return swarm_orders.way_back(fleet.context, known(fleet, "web"))


def test_before_a_rollback_it_is_said_what_a_row_would_have_started(fleet: Fleet) -> None:
    former = replicated("web", image="app:1")
    container = former["TaskTemplate"]["ContainerSpec"] | {"CapabilityAdd": ["CAP_SYS_ADMIN"], "Env": ["KEY=SECRET"]}
    way = kept_as_former(fleet, {**former, "TaskTemplate": {"ContainerSpec": container}})
    told = [change.text for change in way.changes]
    assert "TaskTemplate.ContainerSpec.CapabilityAdd: added" in told
    assert "TaskTemplate.ContainerSpec.Env: added" in told
    assert "TaskTemplate.ContainerSpec.Image: app:2 -> app:1" in told
    assert "SECRET" not in str(told)


def test_what_was_not_shown_is_not_gone_back_to(fleet: Fleet) -> None:
    way = kept_as_former(fleet, replicated("web", image="app:1"))
    fleet.connection.execute("UPDATE owner_specs SET former = jsonb_set(former, '{Labels}', '{\"x\": \"y\"}')")
    orders = list(fleet.engine.orders)
    with pytest.raises(Refused, match="web was changed meanwhile"):
        swarm_orders.roll_back(fleet.context, TESTS, known(fleet, "web"), way)
    assert fleet.engine.orders == orders
