"""What a service asks of a node, and what a node has, read from documents as Docker's API gives them."""

from pathlib import Path
from typing import Any

import pytest

from skyctl.domain.engine import HostPort, Mount, Platform, Plugin, Requirements, Reserved
from skyctl.domain.states import ServiceMode
from skyctl.swarm import SwarmEngine, readings
from tests.support.docker_stub import Answer, engine

GPUS = [{"NamedResourceSpec": {"Kind": "gpu", "Value": name}} for name in ("one", "two")]
SSDS = {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}


def node(identity: str = "node1", *networks: str) -> dict[str, Any]:
    plugins = [{"Type": "Log", "Name": "json-file"}, *({"Type": "Network", "Name": each} for each in networks)]
    return {
        "ID": identity,
        "Spec": {"Availability": "active", "Role": "worker", "Labels": {"zone": "a"}},
        "Status": {"State": "ready", "Addr": "10.0.0.7"},
        "Description": {
            "Hostname": "north",
            "Platform": {"OS": "linux", "Architecture": "x86_64"},
            "Resources": {"NanoCPUs": 4 * 10**9, "MemoryBytes": 2**30, "GenericResources": [*GPUS, SSDS]},
            "Engine": {"EngineVersion": "20.10.24", "Labels": {"disk": "fast"}, "Plugins": plugins},
        },
    }


def service(template: dict[str, Any] | None = None, mode: str = "Replicated", **more: Any) -> dict[str, Any]:
    spec = {"Name": "shop", "TaskTemplate": template or {}, "Mode": {mode: {}}}
    return {"ID": "service1", "Version": {"Index": 1}, "Spec": spec, **more}


def test_what_a_node_has_is_read() -> None:
    seen = readings.node(node("node1", "overlay"))
    assert (seen.labels, seen.engine_labels) == ({"zone": "a"}, {"disk": "fast"})
    assert seen.platform == Platform("linux", "x86_64")
    assert seen.plugins == {Plugin("Log", "json-file"), Plugin("Network", "overlay")}
    assert seen.generic == {"gpu": 2, "ssd": 3}


def test_a_node_that_says_nothing_of_itself_has_nothing_of_it() -> None:
    bare = {**node(), "Description": {}, "Spec": {"Availability": "active", "Role": "worker"}}
    seen = readings.node(bare)
    assert not (seen.labels or seen.engine_labels or seen.plugins or seen.generic)
    assert seen.platform == Platform()


def test_what_a_service_asks_is_read() -> None:
    template = {
        "ContainerSpec": {
            "Mounts": [
                {"Type": "volume", "Source": "own", "Target": "/own"},
                {"Type": "volume", "Source": "far", "Target": "/far", "VolumeOptions": {"DriverConfig": {"Name": "x"}}},
            ]
        },
        "Placement": {
            "Constraints": ["Node.Role==worker"],
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {"OS": "linux"}],
            "MaxReplicas": 2,
        },
        "Resources": {"Reservations": {"NanoCPUs": 5, "MemoryBytes": 7, "GenericResources": [SSDS]}},
        "Networks": [{"Target": "net1"}, {"Target": "unknown"}],
        "LogDriver": {"Name": "gelf"},
    }
    ports = [
        {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"},
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
        {"Protocol": "tcp", "TargetPort": 81, "PublishMode": "host"},
    ]
    seen = readings.service(service(template, Endpoint={"Ports": ports}), [], {"net1": "weave"})
    assert seen.requirements == Requirements(
        constraints=("Node.Role==worker",),
        platforms=(Platform("linux", "amd64"), Platform("linux", "")),
        plugins=(Plugin("Volume", "x"), Plugin("Network", "weave"), Plugin("Log", "gelf")),
        reserved=Reserved(5, 7, (("ssd", 3),)),
        host_ports=(HostPort(5353, "udp"),),
        max_replicas=2,
    )


@pytest.mark.parametrize("driver", [None, {}, {"Name": ""}, {"Name": "none"}, {"Options": {"max-size": "1m"}}])
def test_logs_without_a_plugin_ask_for_none(driver: dict[str, Any] | None) -> None:
    assert readings.service(service({"LogDriver": driver}), []).requirements == Requirements()


@pytest.mark.parametrize("mode", list(ServiceMode))
def test_every_mode_is_told(mode: ServiceMode) -> None:
    word = "".join(part.capitalize() for part in mode.value.split("-"))
    seen = readings.service(service(mode=word), [])
    assert (seen.mode, seen.replicas) == (mode, 1 if mode is ServiceMode.REPLICATED else None)


def test_mounts_are_read_with_their_options() -> None:
    options = {"type": "nfs", "o": "addr=10.0.0.1"}
    mounts = [
        {"Type": "bind", "Source": "/etc/localtime", "Target": "/etc/localtime", "ReadOnly": True},
        {"Type": "volume", "Source": "n", "Target": "/n", "VolumeOptions": {"DriverConfig": {"Options": options}}},
        {"Type": "volume", "Target": "/anonymous", "VolumeOptions": {"NoCopy": True}},
    ]
    assert readings.service(service({"ContainerSpec": {"Mounts": mounts}}), []).mounts == [
        Mount("bind", "/etc/localtime", "/etc/localtime", read_only=True),
        Mount("volume", "n", "/n", options=options),
        Mount("volume", "", "/anonymous"),
    ]


def test_what_a_task_was_given_of_its_node_is_read() -> None:
    port = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}
    seen = readings.task(
        {
            "ID": "task1",
            "NodeID": "node1",
            "DesiredState": "running",
            "CreatedAt": "2026-11-01T00:00:00Z",
            "Spec": {"Resources": {"Reservations": {"MemoryBytes": 7, "GenericResources": [SSDS]}}},
            "GenericResources": GPUS,
            "Status": {"State": "running", "PortStatus": {"Ports": [port, port]}},
        }
    )
    assert (seen.reserved, seen.host_ports) == (Reserved(0, 7, (("gpu", 2),)), (HostPort(8080),))


@pytest.mark.parametrize("differ", [False, True])
def test_networks_are_asked_for_only_where_nodes_differ_in_them(tmp_path: Path, differ: bool) -> None:
    asked: list[str] = []

    def answer(_method: str, path: str) -> Answer:
        asked.append(path)
        answers = {
            "/nodes": [node("node1", "overlay", "weave"), node("node2", "overlay", *["weave"] * (not differ))],
            "/services": [service({"Networks": [{"Target": "net1"}]})],
            "/tasks": [],
            "/networks": [{"Id": "net1", "Driver": "weave"}],
        }
        return 200, answers[path]

    with engine(tmp_path, answer) as host:
        (seen,) = SwarmEngine(host, None).observe().services.values()
    assert seen.requirements.plugins == (Plugin("Network", "weave"),) * differ
    assert asked.count("/networks") == differ
