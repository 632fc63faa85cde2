"""What every engine keeps to, the fake and the real one alike."""

import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import (
    Document,
    EngineService,
    EngineSpec,
    EngineTask,
    HostPort,
    NodeTask,
    Plugin,
    Port,
    Requirements,
    RestartPolicy,
    reserved_for,
)
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable
from skyctl.domain.logs import LogOptions
from skyctl.domain.states import EndpointMode
from skyctl.operations.shared.context import Engine
from skyctl.rules import owner_specs
from skyctl.rules.tasks import ENDED

_MANY = 5  # ends of containers; of on-failure with three attempts the fourth is the last
_SECONDS = 300  # ends a wait that is hopeless
LABEL = "skypanel.deployment.id"


@dataclass(frozen=True)
class Ground:
    """A swarm to try services on: two of its workers, an image that both have, one that nobody has, and by their exit
    codes those whose containers end as soon as they run."""

    engine: Engine
    first: str
    second: str
    image: str
    absent: str
    ending: Mapping[int, str] = field(default_factory=dict)
    pause_seconds: float = 0

    def spec(self, deployment: str = "one", slug: str = "shop") -> EngineSpec:
        """A service on the first worker."""
        return EngineSpec(
            name=f"org-1-{slug}",
            network="org-1-network",
            alias=slug,
            node_id=self.first,
            image=self.image,
            limits=Capacity(0.25, 32),
            labels={"skypanel.service.id": slug, LABEL: deployment},
            network_labels={"skypanel.network.type": "organization"},
            endpoint_mode=EndpointMode.DNSRR,
        )

    def deploy(self, spec: EngineSpec) -> str:
        """Deploy what the engine has by now, or has not; the service's id."""
        found = self.engine.find(spec.name)
        return self.engine.deploy(spec, found.version if found else None)

    def seen(self, service_id: str) -> EngineService:
        return self.engine.observe([service_id]).services[service_id]

    def until(self, service_id: str, condition: Callable[[EngineService], object]) -> EngineService:
        """The service once it is so; AssertionError when it does not become so."""
        deadline = time.monotonic() + _SECONDS
        while not condition(service := self.seen(service_id)):
            assert time.monotonic() < deadline, f"not so in {_SECONDS} s: {service}"
            threading.Event().wait(self.pause_seconds)
        return service

    def quiet(self, service_id: str) -> EngineService:
        """The service once it runs, and only where it is pinned, and is of one version for a while."""
        service = self.until(service_id, at_peace)
        for _ in range(10):
            threading.Event().wait(self.pause_seconds)
            if (now := self.seen(service_id)).version != service.version:
                return self.quiet(service_id)
            service = now
        return service

    def write(self, service_id: str, change: Callable[[Document], Document]) -> None:
        """Change the specification of a service, also where the engine raises its version at the same moment."""
        document = self.engine.read(service_id)
        assert document
        try:
            self.engine.write(service_id, document.version, change(document.spec))
        except EngineConflict:
            self.write(service_id, change)

    def move(self, service_id: str, node_id: str, deployment: str) -> EngineService:
        """Move a service and see it there."""
        self.engine.move(service_id, self.seen(service_id).version, node_id, {LABEL: deployment})
        return self.quiet(service_id)


def running(service: EngineService) -> list[EngineTask]:
    return [task for task in service.tasks if task.state == "running" and task.wanted == "running"]


def at_peace(service: EngineService) -> bool:
    """Whether the one task that is not over runs where the service is pinned."""
    alive = [task for task in service.tasks if task.state not in ENDED]
    return [(task.node_id, task.state, task.wanted) for task in alive] == [(service.node_id, "running", "running")]


class EngineContract:
    """To be inherited by a test class that gives the two engines."""

    @pytest.fixture
    def managing(self) -> Engine:
        """An engine that manages a swarm."""
        raise NotImplementedError

    @pytest.fixture
    def outside(self) -> Engine:
        """An engine that is in no swarm."""
        raise NotImplementedError

    @pytest.fixture
    def ground(self) -> Iterator[Ground]:
        """A swarm without services."""
        raise NotImplementedError

    def test_a_manager_tells_an_address_with_its_port_and_a_token(self, managing: Engine) -> None:
        join = managing.worker_join()
        assert join is not None
        assert re.fullmatch(r"(\[[0-9a-f:]+\]|[\w.-]+):\d+", join.address)
        assert join.token.startswith("SWMTKN-1-")

    def test_it_tells_the_same_when_it_is_asked_again(self, managing: Engine) -> None:
        assert managing.worker_join() == managing.worker_join()

    def test_the_token_does_not_show(self, managing: Engine) -> None:
        join = managing.worker_join()
        assert join is not None
        assert join.token not in f"{join!r} {managing!r}"

    def test_outside_any_swarm_there_is_nothing_to_tell(self, outside: Engine) -> None:
        assert outside.worker_join() is None

    def test_a_manager_says_that_it_is_one(self, managing: Engine) -> None:
        state = managing.state()
        assert state is not None
        assert (state.swarm, state.manages, state.trouble) == ("active", True, "")
        assert re.match(r"\d+\.\d+", state.version)

    def test_an_engine_outside_any_swarm_says_so(self, outside: Engine) -> None:
        state = outside.state()
        assert state is not None
        assert (state.swarm, state.manages) == ("inactive", False)

    def test_outside_any_swarm_nothing_is_seen_or_done(self, outside: Engine, ground: Ground) -> None:
        with pytest.raises(EngineUnavailable) as caught:
            outside.observe()
        assert "docker swarm init" in caught.value.hint
        with pytest.raises(EngineUnavailable):
            outside.deploy(ground.spec(), None)

    def test_what_is_deployed_runs_where_it_is_pinned(self, ground: Ground) -> None:
        service = ground.quiet(ground.deploy(ground.spec()))
        (task,) = service.tasks
        assert (service.name, service.node_id, service.replicas) == ("org-1-shop", ground.first, 1)
        assert (service.image, service.labels) == (ground.image, ground.spec().labels)
        assert (service.endpoint_mode, service.limits) == (EndpointMode.DNSRR, Capacity(0.25, 32))
        assert (task.node_id, task.deployment_id, task.error) == (ground.first, "one", "")
        assert task.container_id

    def test_deploying_the_same_again_changes_nothing(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        assert ground.deploy(ground.spec()) == before.id
        after = ground.quiet(before.id)
        assert [task.id for task in after.tasks] == [task.id for task in before.tasks]

    def test_deploying_it_otherwise_replaces_the_container(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        assert ground.deploy(replace(ground.spec("two"), environment={"COLOUR": "green"})) == before.id
        after = ground.until(before.id, lambda service: at_peace(service) and len(service.tasks) == 2)
        assert [(task.state, task.deployment_id) for task in after.tasks] == [("shutdown", "one"), ("running", "two")]
        assert all(task.node_id == ground.first for task in after.tasks)

    def test_a_service_is_found_by_its_name_with_the_version_that_a_change_must_name(self, ground: Ground) -> None:
        assert ground.engine.find("org-1-shop") is None
        before = ground.quiet(ground.deploy(ground.spec()))
        assert ground.engine.find("org-1-shop") == (before.id, before.version, before.labels)
        assert ground.engine.find("org-1-sho") is None
        assert ground.engine.find(before.id) is None

    def test_what_was_deployed_again_meanwhile_is_not_overwritten(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        ground.deploy(ground.spec("two"))
        with pytest.raises(EngineConflict):
            ground.engine.deploy(ground.spec("late"), before.version)
        assert ground.seen(before.id).labels[LABEL] == "two"

    def test_what_is_to_be_created_and_exists_is_a_conflict(self, ground: Ground) -> None:
        before = ground.seen(ground.deploy(ground.spec()))
        with pytest.raises(EngineConflict):
            ground.engine.deploy(ground.spec("late"), None)
        assert ground.seen(before.id).labels[LABEL] == "one"

    def test_what_is_to_be_changed_and_is_gone_is_a_conflict(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        ground.engine.remove(before.id)
        with pytest.raises(EngineConflict):
            ground.engine.deploy(ground.spec("late"), before.version)
        assert not ground.engine.observe().services

    def test_of_several_none_is_pinned_and_each_is_started(self, ground: Ground) -> None:
        service_id = ground.deploy(replace(ground.spec(), node_id=None, replicas=3))
        service = ground.until(service_id, lambda service: len(running(service)) == 3)
        assert (service.node_id, service.replicas, service.requirements.constraints) == (None, 3, ())
        assert {task.deployment_id for task in running(service)} == {"one"}

    def test_scaling_leaves_the_containers_that_run_as_they_are(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        first = {task.id for task in running(before)}
        ground.write(before.id, lambda spec: owner_specs.scaled(spec, 3, {LABEL: "two"}))
        three = ground.until(before.id, lambda service: len(running(service)) == 3)
        ids = {task.id for task in running(three)}
        assert first < ids
        assert (three.node_id, three.replicas, three.labels[LABEL]) == (None, 3, "two")
        ground.write(before.id, lambda spec: owner_specs.scaled(spec, 1, {LABEL: "three"}))
        one = ground.until(before.id, lambda service: len([t for t in service.tasks if t.state not in ENDED]) == 1)
        (left,) = running(one)
        assert left.id in ids
        pinned = ground.move(before.id, left.node_id or "", "three")
        assert [task.id for task in running(pinned)] == [left.id]

    def test_a_moved_one_runs_there_before_it_stops_here(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        ground.engine.move(before.id, before.version, ground.second, {LABEL: "two"})
        history: list[EngineService] = []
        while not history or not at_peace(history[-1]):
            history.append(ground.seen(before.id))
        assert all(any(task.state == "running" for task in service.tasks) for service in history)
        old, new = history[-1].tasks
        assert (old.node_id, old.state, new.node_id, new.state) == (ground.first, "shutdown", ground.second, "running")
        assert history[-1].labels == {"skypanel.service.id": "shop", LABEL: "two"}
        assert (history[-1].image, history[-1].limits) == (before.image, before.limits)

    def test_moving_it_where_it_runs_starts_nothing(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        after = ground.move(before.id, ground.first, "two")
        assert [task.id for task in after.tasks] == [task.id for task in before.tasks]
        assert (after.labels[LABEL], after.tasks[0].deployment_id) == ("two", "one")

    def test_moving_it_back_early_leaves_the_old_container_as_it_was(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        ground.engine.move(before.id, before.version, ground.second, {LABEL: "two"})
        ground.until(before.id, lambda service: len(service.tasks) == 2)
        after = ground.move(before.id, ground.first, "one")
        assert [task.id for task in running(after)] == [task.id for task in before.tasks]

    def test_a_move_of_what_was_changed_meanwhile_is_a_conflict(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        ground.move(before.id, ground.second, "two")
        with pytest.raises(EngineConflict):
            ground.engine.move(before.id, before.version, ground.first, {})
        assert ground.seen(before.id).node_id == ground.second

    def test_a_move_of_what_is_gone_is_a_conflict(self, ground: Ground) -> None:
        before = ground.seen(ground.deploy(ground.spec()))
        ground.engine.remove(before.id)
        with pytest.raises(EngineConflict):
            ground.engine.move(before.id, before.version, ground.second, {})

    def test_an_image_that_nobody_has_keeps_the_old_container_and_says_why(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        ground.deploy(replace(ground.spec("two"), image=ground.absent))
        seen = ground.until(before.id, lambda service: any(task.error for task in service.tasks))
        failed = next(task for task in seen.tasks if task.error)
        assert (failed.state, failed.deployment_id) == ("rejected", "two")
        assert ground.absent in failed.error
        assert [task.id for task in running(seen)] == [task.id for task in before.tasks]

    def test_an_image_that_no_registry_has_has_no_digest_and_it_is_said_why(self, ground: Ground) -> None:
        with pytest.raises((EngineRefused, EngineUnavailable), match=re.escape(ground.absent)):
            ground.engine.digest(ground.absent)

    @pytest.mark.parametrize("exit_code", [0, 3])
    def test_what_ends_is_started_again_however_often_it_ends(self, ground: Ground, exit_code: int) -> None:
        service_id = ground.deploy(replace(ground.spec(), image=ground.ending[exit_code]))
        ended: dict[str, EngineTask] = {}

        def has_ended_often(service: EngineService) -> bool:
            ended.update((task.id, task) for task in service.tasks if task.state in ENDED)
            return len(ended) > _MANY and any(task.state not in ENDED for task in service.tasks)

        service = ground.until(service_id, has_ended_often)
        assert {task.state for task in ended.values()} == {"failed" if exit_code else "complete"}
        assert {task.exit_code for task in ended.values()} == {exit_code}
        assert {task.error for task in ended.values()} == ({"task: non-zero exit (3)"} if exit_code else {""})
        assert service.restarts == RestartPolicy("any")

    def test_a_stopped_one_stays_without_a_container_until_it_is_deployed(self, ground: Ground) -> None:
        service = ground.quiet(ground.deploy(ground.spec()))
        for _ in "once", "again":
            ground.engine.stop(service.id)
            assert ground.seen(service.id).replicas == 0
        ground.until(
            service.id, lambda service: not running(service) and all(task.state != "running" for task in service.tasks)
        )
        assert ground.deploy(ground.spec("two")) == service.id
        assert running(ground.quiet(service.id))[0].deployment_id == "two"

    def test_what_is_removed_is_not_seen_any_more(self, ground: Ground) -> None:
        service = ground.quiet(ground.deploy(ground.spec()))
        for _ in "once", "again":
            ground.engine.remove(service.id)
            assert service.id not in ground.engine.observe([service.id]).services
            assert service.id not in ground.engine.observe().services
            ground.engine.stop(service.id)

    def test_only_what_is_asked_for_is_seen(self, ground: Ground) -> None:
        one, two = (ground.deploy(ground.spec(slug=slug)) for slug in ("one", "two"))
        assert set(ground.engine.observe().services) == {one, two}
        assert set(ground.engine.observe([two, "unknown"]).services) == {two}
        nothing = ground.engine.observe([])
        assert not nothing.services
        assert {ground.first, ground.second} <= set(nothing.nodes)

    def test_what_a_node_has_is_told_by_service_until_it_has_stopped(self, ground: Ground) -> None:
        service = ground.quiet(ground.deploy(ground.spec()))

        def there(node_id: str) -> dict[str, NodeTask]:
            found = ground.engine.tasks_on([node_id])
            return {each.service_id: each for each in found if each.task.state not in ENDED}

        on_first = there(ground.first)[service.id]
        assert (on_first.service_name, on_first.task.state) == (service.name, "running")
        assert service.id not in there(ground.second)
        assert ground.engine.tasks_on([]) == ground.engine.tasks_on(["unknown"]) == []
        both = ground.engine.tasks_on([ground.second, "unknown", ground.first])
        assert {each.task.id for each in both if each.service_id == service.id} == {on_first.task.id}
        ground.engine.remove(service.id)
        deadline = time.monotonic() + _SECONDS
        while service.id in there(ground.first):
            assert time.monotonic() < deadline
            threading.Event().wait(ground.pause_seconds)

    def test_what_its_containers_write_is_told_line_by_line(self, ground: Ground) -> None:
        command = ["sh", "-c", "echo one; echo two words; sleep 1000"]
        service = ground.quiet(ground.deploy(replace(ground.spec(), command=command)))
        deadline = time.monotonic() + _SECONDS
        while len(lines := list(ground.engine.logs(service.id, LogOptions()))) < 2:
            assert time.monotonic() < deadline
            threading.Event().wait(ground.pause_seconds)
        (task,) = running(service)
        assert [(line.task_id, line.node_id, line.text) for line in lines] == [
            (task.id, ground.first, "one"),
            (task.id, ground.first, "two words"),
        ]
        assert all(line.at.startswith("20") for line in lines)
        assert [line.text for line in ground.engine.logs(service.id, LogOptions(tail=1))] == ["two words"]
        followed = ground.engine.logs(service.id, LogOptions(follow=True))
        assert [next(followed).text, next(followed).text] == ["one", "two words"]
        with pytest.raises(EngineRefused):
            list(ground.engine.logs("unknown", LogOptions()))

    def test_a_node_says_where_it_is_what_it_has_and_that_it_manages_nothing(self, ground: Ground) -> None:
        node = ground.engine.observe(()).nodes[ground.first]
        assert ipaddress.ip_address(node.address)
        assert node.hostname
        assert not node.is_manager
        assert node.capacity.cpu_cores >= 1
        assert node.capacity.memory_mb >= 64

    def test_a_node_says_its_platform_and_its_plugins(self, ground: Ground) -> None:
        node = ground.engine.observe(()).nodes[ground.first]
        assert node.platform.os == "linux"
        assert node.platform.arch
        assert {Plugin("Network", "overlay"), Plugin("Volume", "local"), Plugin("Log", "json-file")} <= node.plugins

    def test_what_a_service_asks_of_its_node_is_told(self, ground: Ground) -> None:
        spec = replace(ground.spec(), ports=[Port(18080, 80), Port(0, 81)])
        service = ground.quiet(ground.deploy(spec))
        asked = Requirements((f"node.id=={ground.first}",), reserved=reserved_for(spec.limits))
        assert replace(service.requirements, host_ports=()) == asked
        assert HostPort(18080) in service.requirements.host_ports
        [task] = running(service)
        assert (task.reserved, HostPort(18080) in task.host_ports) == (asked.reserved, True)

    def test_a_port_of_a_node_is_one_containers(self, ground: Ground) -> None:
        first = replace(ground.spec(), ports=[Port(18080, 80)])
        ground.quiet(ground.deploy(first))
        other = ground.deploy(replace(ground.spec(slug="other"), ports=[Port(18080, 80)]))
        waiting = ground.until(other, lambda service: any(task.error for task in service.tasks))
        assert [(task.state, task.node_id) for task in waiting.tasks] == [("pending", None)]
        assert "host-mode port already in use on 1 node" in waiting.tasks[0].error
        assert ground.move(other, ground.second, "two").node_id == ground.second

    def test_a_service_with_a_port_of_its_node_is_changed_where_it_is(self, ground: Ground) -> None:
        spec = replace(ground.spec(), ports=[Port(18080, 80)])
        before = ground.quiet(ground.deploy(spec))
        changed = replace(spec, environment={"A": "2"}, labels={**spec.labels, LABEL: "two"})
        ground.deploy(changed)
        after = ground.until(
            before.id, lambda service: at_peace(service) and running(service)[0].deployment_id == "two"
        )
        assert running(after)[0].node_id == ground.first

    def test_it_says_which_node_it_is_itself_and_that_this_manages_the_swarm(self, ground: Ground) -> None:
        state = ground.engine.state()
        assert state is not None
        assert ground.engine.observe(()).nodes[state.node_id].is_manager

    def test_a_node_that_is_paused_takes_nothing_new_and_keeps_what_it_has(self, ground: Ground) -> None:
        before = ground.quiet(ground.deploy(ground.spec()))
        ground.engine.set_availability(ground.first, "pause")
        assert ground.engine.observe([]).nodes[ground.first].availability == "pause"
        assert at_peace(ground.seen(before.id))
        other = ground.deploy(ground.spec(slug="other"))
        waiting = ground.until(other, lambda service: any(task.error for task in service.tasks))
        assert [(task.state, task.node_id) for task in waiting.tasks] == [("pending", None)]
        assert "no suitable node" in waiting.tasks[0].error
        ground.engine.set_availability(ground.first, "active")
        assert ground.quiet(other).tasks[-1].node_id == ground.first

    def test_an_unknown_node_has_no_availability_and_is_removed_already(self, ground: Ground) -> None:
        with pytest.raises(EngineRefused, match="unknown"):
            ground.engine.set_availability("unknown", "pause")
        ground.engine.remove_node("unknown")
