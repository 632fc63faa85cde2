"""What a deployment changes, as it is told before: every field, and of variables only that they change."""

from dataclasses import replace

from skyctl.documents import changes
from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import Port
from skyctl.domain.workloads import ServiceSpec


def test_every_field_is_told_and_no_value_of_a_variable() -> None:
    before = ServiceSpec(
        "web", "app:1", Capacity(1, 512, 10), {"A": "SECRET1", "B": "SECRET2", "C": "x"}, [Port(8080, 80)], pool="p"
    )
    after = replace(
        before,
        image="app:2",
        limits=Capacity(2, 512, 10),
        environment={"A": "SECRET3", "D": "SECRET4", "C": "x"},
        ports=[],
        labels={"team": "x"},
        replicas=3,
        pool=None,
    )
    told = [change.text for change in changes.changes(before, after)]
    assert told == [
        "image: app:1 -> app:2",
        "cpu: 1 -> 2",
        "env.A: changed",
        "env.B: removed",
        "env.D: added",
        "ports: 8080:80 -> -",
        "labels.team: - -> x",
        "replicas: 1 -> 3",
        "pool: p -> -",
    ]
    assert "SECRET" not in str(changes.changes(before, after))
    assert changes.changes(after, after) == []


def test_of_two_specifications_of_the_swarm_the_names_are_told_and_no_value_but_images() -> None:
    def spec(container: dict[str, object], **more: object) -> dict[str, object]:
        return {"Name": "web", "TaskTemplate": {"ContainerSpec": container}, **more}

    before = spec({"Image": "app:2", "Env": ["A=SECRET"], "Args": ["--key", "SECRET"], "Hosts": []}, Labels={"x": "1"})
    after = spec({"Image": "app:1", "Env": ["A=OTHER"], "Mounts": [{"Source": "/"}]}, Labels=None)
    assert [change.text for change in changes.of_specifications(before, after)] == [
        "Labels.x: removed",
        "TaskTemplate.ContainerSpec.Args: removed",
        "TaskTemplate.ContainerSpec.Env: changed",
        "TaskTemplate.ContainerSpec.Image: app:2 -> app:1",
        "TaskTemplate.ContainerSpec.Mounts: added",
    ]
