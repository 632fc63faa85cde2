"""What a move promises on a real swarm: nobody notices it, and whatever goes wrong on the way, the old container
stays."""

from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

from skyctl.domain.engine import EngineService, RestartPolicy
from skyctl.domain.errors import EngineConflict, EngineUnavailable
from skyctl.rules import owner_specs
from skyctl.rules import services as rules
from tests.support.engine_contract import LABEL, Ground, at_peace, running
from tests.support.helpers import eventually

from . import images
from .machines import Node
from .network import Network
from .probe import Probe
from .swarm import Swarm, release


@pytest.fixture
def ground(swarm: Swarm) -> Ground:
    north, south = swarm.ids.values()
    return Ground(swarm.engine, north, south, images.WEB, images.ABSENT, pause_seconds=0.1)


@pytest.fixture
def north(swarm: Swarm) -> Node:
    """The worker where services begin."""
    return swarm.workers[0]


def wait_for_node(ground: Ground, node_id: str, *, is_up: bool) -> None:
    eventually(lambda: ground.engine.observe([]).nodes[node_id].is_up == is_up)


def answers(ground: Ground) -> bool:
    with suppress(EngineUnavailable):
        return bool(ground.engine.observe().nodes)
    return False


def deploy(ground: Ground, *, image: str = images.WEB, slug: str = "shop") -> EngineService:
    return ground.quiet(ground.deploy(replace(ground.spec(slug=slug), image=image)))


def runs_at(node_id: str, service: EngineService) -> bool:
    """Whether it runs on that node alone; the swarm may have started two there."""
    return {task.node_id for task in running(service)} == {node_id}


def settled(ground: Ground, service_id: str) -> EngineService:
    """The service once it is at peace; of two containers that the swarm keeps, one is ended the way the monitor does
    it."""

    def look(service: EngineService) -> bool:
        if rules.has_surplus(service) and service.node_id:
            again = {owner_specs.LOOK_AGAIN_LABEL: str(service.version)}
            with suppress(EngineConflict):
                ground.engine.move(service.id, service.version, service.node_id, again)
        return at_peace(service)

    return ground.until(service_id, look)


def begin_move(ground: Ground, service: EngineService, node_id: str, deployment: str) -> None:
    ground.engine.move(service.id, ground.seen(service.id).version, node_id, {LABEL: deployment})


@pytest.mark.parametrize("paused_first", [False, True])
def test_those_who_use_the_services_notice_nothing(swarm: Swarm, ground: Ground, paused_first: bool) -> None:
    slugs = ("first", "second", "third")
    services = [deploy(ground, image=images.HEALTHY, slug=slug) for slug in slugs]
    with Probe(swarm.manager, "org-1-network", *slugs) as probe:
        if paused_first:
            ground.engine.set_availability(ground.first, "pause")
        for service in services:
            begin_move(ground, service, ground.second, "two")
        for service in services:
            ground.until(service.id, at_peace)
        told = probe.ended()
    for slug, experience in told.items():
        assert experience.failures == {}, slug
        assert len(experience.by) == 2, f"{slug} did not move under the probe"


def test_what_runs_on_a_lost_node_is_moved_and_its_orphaned_container_ends_with_the_return(
    north: Node, ground: Ground
) -> None:
    before = deploy(ground)
    (orphan,) = before.tasks
    north.cut()
    wait_for_node(ground, ground.first, is_up=False)
    begin_move(ground, before, ground.second, "two")
    moved = ground.until(before.id, partial(runs_at, ground.second))
    assert [(task.state, task.wanted) for task in moved.tasks if task.id == orphan.id] == [("running", "shutdown")]
    assert north.run("docker", "ps", "--quiet")
    north.heal()
    after = settled(ground, before.id)
    assert [task.state for task in after.tasks if task.id == orphan.id] == ["shutdown"]
    assert not north.run("docker", "ps", "--quiet")


def test_of_two_containers_that_the_swarm_keeps_one_ends_when_the_service_is_changed_in_any_way(
    north: Node, swarm: Swarm, ground: Ground
) -> None:
    service_id = ground.deploy(replace(ground.spec(), image=images.HELD))
    release(north, 1)
    service = ground.quiet(service_id)
    # the swarm compares what runs with what is wanted once an update ends: not in this test
    swarm.manager.run("docker", "service", "update", "--detach", "--update-monitor", "1h", service_id)
    begin_move(ground, service, ground.second, "two")
    ground.until(service_id, lambda service: any(task.node_id == ground.second for task in service.tasks))
    north.freeze()
    release(swarm.workers[1], 2)
    ground.until(service_id, lambda service: len(running(service)) == 2)
    begin_move(ground, service, ground.second, "three")
    [kept] = running(ground.until(service_id, lambda service: len(running(service)) == 1))
    assert kept.node_id == ground.second
    north.thaw()
    assert running(ground.until(service_id, at_peace)) == [kept]


def test_it_is_moved_off_a_silent_node_before_the_swarm_has_noticed(north: Node, ground: Ground) -> None:
    before = deploy(ground)
    north.freeze()
    begin_move(ground, before, ground.second, "two")
    ground.until(before.id, partial(runs_at, ground.second))
    north.thaw()
    settled(ground, before.id)


def test_a_node_that_is_removed_takes_its_orphaned_container_along(lab: Network, swarm: Swarm, ground: Ground) -> None:
    with Node(lab, "brief") as brief:
        brief_id = swarm.join(brief)
        before = ground.quiet(ground.deploy(replace(ground.spec(), node_id=brief_id)))
        brief.freeze()
        eventually(lambda: not ground.engine.observe([]).nodes[brief_id].is_up)
    begin_move(ground, before, ground.second, "two")
    ground.until(before.id, running)
    ground.engine.remove_node(brief_id)
    assert brief_id not in ground.engine.observe([]).nodes
    after = settled(ground, before.id)
    assert {task.state for task in after.tasks if task.node_id == brief_id} <= {"orphaned"}


def test_a_target_that_is_lost_leaves_the_old_container_alone(north: Node, ground: Ground) -> None:
    before = ground.move(deploy(ground).id, ground.second, "two")
    (kept,) = running(before)
    north.cut()
    wait_for_node(ground, ground.first, is_up=False)
    begin_move(ground, before, ground.first, "three")
    waiting = ground.until(before.id, lambda service: any(task.error for task in service.tasks))
    assert [(task.state, task.node_id) for task in waiting.tasks if task.error] == [("pending", None)]
    begin_move(ground, before, ground.second, "two")
    back = ground.until(before.id, lambda service: running(service) == [kept])
    north.heal()
    assert running(ground.until(back.id, at_peace)) == [kept]


def test_one_that_does_not_become_healthy_leaves_the_old_container_alone(swarm: Swarm, ground: Ground) -> None:
    for node in swarm.workers:
        node.run("docker", "tag", images.WEB if node is swarm.workers[0] else images.SICK, "localhost:9/skylab/moody:1")
    before = deploy(ground, image="localhost:9/skylab/moody:1")
    begin_move(ground, before, ground.second, "two")
    failed = ground.until(before.id, lambda service: service.update == "paused")
    errors = {task.error for task in failed.tasks if task.node_id == ground.second and task.error}
    assert errors == {"task: non-zero exit (1): dockerexec: unhealthy container"}
    assert [task.id for task in running(failed) if task.node_id == ground.first] == [before.tasks[0].id]
    begin_move(ground, before, ground.first, "one")
    after = ground.until(before.id, at_peace)
    assert [task.id for task in running(after)] == [before.tasks[0].id]


def test_a_manager_that_hangs_is_given_up_and_asked_again_when_it_goes_on(swarm: Swarm, ground: Ground) -> None:
    service = deploy(ground)
    swarm.manager.freeze()
    try:
        with pytest.raises(EngineUnavailable, match="timed out"):  # the engine goes on only after that
            ground.engine.observe()
    finally:
        swarm.manager.thaw()
    assert running(ground.until(service.id, running))


def test_a_manager_that_was_switched_off_is_asked_again_when_it_is_back(swarm: Swarm, ground: Ground) -> None:
    service = deploy(ground)
    swarm.manager.kill()
    for call in (ground.engine.observe, lambda: ground.engine.stop(service.id)):
        with pytest.raises(EngineUnavailable, match="Connection refused"):
            call()
    swarm.manager.power_on()
    eventually(lambda: answers(ground))
    after = ground.until(service.id, at_peace)
    assert [task.id for task in after.tasks] == [task.id for task in service.tasks]


def test_what_was_deployed_by_the_former_policy_gets_the_new_one_where_it_is_moved_to(
    ground: Ground, swarm: Swarm
) -> None:
    """The policy is a part of a task: another one would replace the container that still runs where it was."""
    service = deploy(ground)
    former = ("--restart-condition", "on-failure", "--restart-max-attempts", "3")
    swarm.manager.run("docker", "service", "update", "--detach", *former, service.id)
    before = ground.until(service.id, lambda now: at_peace(now) and len(now.tasks) == 2)
    assert before.restarts == RestartPolicy("on-failure", 3)
    before = ground.quiet(service.id)
    ground.engine.move(service.id, before.version, ground.second, {LABEL: "two"})
    moving = ground.until(service.id, lambda now: len(now.tasks) == 3)
    assert moving.restarts == RestartPolicy("any")
    back = ground.move(service.id, ground.first, "one")
    assert [task.id for task in running(back)] == [task.id for task in running(before)]
    assert back.restarts == RestartPolicy("on-failure", 3)
    moved = ground.move(service.id, ground.second, "two")
    assert (runs_at(ground.second, moved), moved.restarts) == (True, RestartPolicy("any"))
