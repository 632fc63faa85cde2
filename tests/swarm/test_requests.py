"""What is asked of the engine, and what its answers mean, where no real one can be brought to give them on demand."""

from dataclasses import replace
from pathlib import Path

import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineSpec, Mount, Plugin, Port
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable, SkyctlError
from skyctl.domain.states import EndpointMode
from skyctl.swarm import SwarmEngine, readings, specs
from tests.conftest import Cli
from tests.support.docker_stub import Answer, engine

SPEC = EngineSpec(
    name="org-1-shop",
    network="org-1-network",
    alias="shop",
    node_id="node1",
    image="shop:1",
    limits=Capacity(0.5, 256, 10),
    labels={"skypanel.deployment.id": "one"},
    network_labels={"skypanel.network.type": "organization"},
    environment={"COLOUR": "green"},
    ports=(Port(8080, 80),),
    command=("serve",),
)
NODE = {"Version": {"Index": 7}, "Spec": {"Availability": "active", "Role": "worker"}}


@pytest.mark.parametrize(
    ("status", "words", "raised"),
    [
        (500, "rpc error: code = Unknown desc = update out of sequence", EngineConflict),
        (409, "name conflicts with an existing object", EngineConflict),
        (400, "rpc error: code = InvalidArgument desc = invalid", EngineRefused),
        (500, "rpc error: code = Unknown desc = no", EngineRefused),
        (500, "rpc error: code = Unknown desc = The swarm does not have a leader.", EngineUnavailable),
        (500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", EngineUnavailable),
        (503, "This node is not a swarm manager.", EngineUnavailable),
        (403, "This node is not a swarm manager.", EngineUnavailable),
    ],
)
def test_what_the_engine_says_to_an_order_becomes_an_error_of_ours(
    tmp_path: Path, status: int, words: str, raised: type[SkyctlError]
) -> None:
    def answer(method: str, _path: str) -> Answer:
        return (200, NODE) if method == "GET" else (status, {"message": words})

    with engine(tmp_path, answer) as host, pytest.raises(SkyctlError) as caught:
        SwarmEngine(host, None).set_availability("node1", "pause")
    assert type(caught.value) is raised
    assert words in caught.value.message
    assert host in caught.value.message


def test_an_engine_that_does_not_tell_is_as_good_as_none(tmp_path: Path) -> None:
    with engine(tmp_path, lambda *_: (400, {"message": "client version 1.41 is too old"})) as host:
        asked = SwarmEngine(host, None)
        for call in (asked.observe, asked.worker_join, asked.state):
            with pytest.raises(EngineUnavailable, match="is too old") as caught:
                call()
            assert "does not answer" not in caught.value.message


LOCKED = {"LocalNodeState": "locked", "ControlAvailable": False, "NodeID": "", "Error": ""}
NO_LEADER = {**LOCKED, "LocalNodeState": "pending", "Error": "rpc error: The swarm does not have a leader."}


@pytest.mark.parametrize(
    ("swarm", "why", "remedy"),
    [
        (LOCKED, "its swarm is locked", "docker swarm unlock"),
        (NO_LEADER, "The swarm does not have a leader", "see that most managers of the swarm are up"),
        ({**NO_LEADER, "LocalNodeState": "error", "Error": "x509: certificate has expired"}, "x509: ", "info`"),
    ],
)
def test_no_script_is_made_that_joins_no_swarm_because_the_swarm_cannot_say_how(
    cli: Cli, tmp_path: Path, swarm: dict[str, object], why: str, remedy: str
) -> None:
    with engine(tmp_path, lambda *_: (200, {"ServerVersion": "28.5", "Swarm": swarm})) as host:
        refused = cli("workers", "install-script", "--name", "w1", "--insecure", DOCKER_HOST=host)
        assert (refused.returncode, refused.stdout) == (5, "")
        error, hint = refused.stderr.splitlines()[-2:]
        assert ("does not tell the swarm's join token: " in error, why in error) == (True, True)
        assert remedy in hint
    assert "w1" not in cli("workers", "list").stdout


@pytest.mark.parametrize("status", [502, 200])
def test_an_answer_that_is_not_dockers_is_an_engine_that_does_not_answer(tmp_path: Path, status: int) -> None:
    with engine(tmp_path, lambda *_: (status, "bad gateway")) as host, pytest.raises(EngineUnavailable):
        SwarmEngine(host, None).observe()


def test_a_node_that_somebody_else_changes_is_changed_all_the_same(tmp_path: Path) -> None:
    answers = iter([(500, {"message": "update out of sequence"}), (200, None)])
    with engine(tmp_path, lambda method, _: (200, NODE) if method == "GET" else next(answers)) as host:
        SwarmEngine(host, None).set_availability("node1", "pause")
    assert next(answers, None) is None


def test_a_network_that_somebody_else_creates_at_the_same_moment_is_taken(tmp_path: Path) -> None:
    asked = []

    def answer(method: str, path: str) -> Answer:
        asked.append(f"{method} {path}")
        answers: dict[str, Answer] = {
            "GET /networks/org-1-network": (404, {"message": "no"}) if len(asked) == 1 else (200, {"Id": "net1"}),
            "POST /networks/create": (409, {"message": "network with name org-1-network already exists"}),
            "POST /services/create": (201, {"ID": "service1"}),
        }
        return answers[asked[-1]]

    with engine(tmp_path, answer) as host:
        assert SwarmEngine(host, None).deploy(SPEC, None) == "service1"


def test_services_that_vanish_while_they_are_read_are_left_out(tmp_path: Path) -> None:
    asked = []

    def answer(_method: str, path: str) -> Answer:
        asked.append(path)
        if path == "/services":
            service = {"Name": "org-1-shop", "TaskTemplate": {}, "Mode": {"Global": {}}}
            return 200, [{"ID": "service1", "Version": {"Index": 1}, "Spec": service}]
        if asked.count("/tasks") == 1 and path == "/tasks":
            return 404, {"message": "service service1 not found"}
        return 200, []

    with engine(tmp_path, answer) as host:
        (seen,) = SwarmEngine(host, None).observe(["service1"]).services.values()
    assert (seen.replicas, seen.node_id, seen.tasks) == (None, None, [])


def test_a_service_is_told_with_the_panels_policy() -> None:
    told = specs.service(SPEC, "net1")
    template = told["TaskTemplate"]
    assert template["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 256 * 2**20},
        "Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 128 * 2**20},
    }
    assert template["RestartPolicy"] == {"Condition": "any", "Delay": 5 * 10**9, "MaxAttempts": 0}
    assert template["Networks"] == [{"Target": "net1", "Aliases": ["shop"]}]
    assert template["ContainerSpec"] == {
        "Image": "shop:1",
        "Labels": {"skypanel.deployment.id": "one"},
        "Env": ["COLOUR=green"],
        "Args": ["serve"],
    }
    assert told["UpdateConfig"] == {
        "Parallelism": 1,
        "Order": "start-first",
        "FailureAction": "rollback",
        "Delay": 10 * 10**9,
        "Monitor": 15 * 10**9,
        "MaxFailureRatio": 0.3,
    }


@pytest.mark.parametrize(("mode", "published_by"), [(EndpointMode.VIP, "ingress"), (EndpointMode.DNSRR, "host")])
def test_what_has_no_virtual_ip_is_published_by_its_node(mode: EndpointMode, published_by: str) -> None:
    told = specs.service(replace(SPEC, endpoint_mode=mode), "net1")
    assert told["EndpointSpec"]["Mode"] == mode
    assert [port["PublishMode"] for port in told["EndpointSpec"]["Ports"]] == [published_by]


def test_a_network_is_encrypted_unless_the_engine_cannot() -> None:
    assert specs.network(SPEC, encrypted=True)["Options"] == {"encrypted": ""}
    assert specs.network(SPEC, encrypted=False)["Options"] == {}


def test_no_reservation_is_below_what_the_engine_takes() -> None:
    told = specs.service(replace(SPEC, limits=Capacity(0.01, 6)), "net1")
    assert told["TaskTemplate"]["Resources"]["Reservations"] == {"NanoCPUs": 10_000_000, "MemoryBytes": 4 * 2**20}
    unlimited = specs.service(replace(SPEC, limits=Capacity()), "net1")
    assert unlimited["TaskTemplate"]["Resources"]["Reservations"] == {"NanoCPUs": 0, "MemoryBytes": 0}


def test_a_move_leaves_alone_what_it_does_not_know() -> None:
    before = {
        "Name": "org-1-shop",
        "Labels": {"a": "1", "b": "2"},
        "Novelty": {"x": 1},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "shop:1", "Novelty": 2},
            "Placement": {"Constraints": ["node.platform.os==linux", "node.id == node1"], "MaxReplicas": 1},
        },
        "UpdateConfig": {"Monitor": 5, "FailureAction": "rollback"},
    }
    after = specs.moved(before, "node2", {"b": "3"})
    assert after == {
        "Name": "org-1-shop",
        "Labels": {"a": "1", "b": "3"},
        "Novelty": {"x": 1},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "shop:1", "Novelty": 2},
            "Placement": {"Constraints": ["node.platform.os==linux", "node.id==node2"], "MaxReplicas": 1},
        },
        "UpdateConfig": {"Monitor": 5, "FailureAction": "pause", "Parallelism": 1, "Order": "start-first", "Delay": 1},
    }
    assert specs.pinned_to(after) == "node2"


def test_what_runs_on_every_node_is_not_stopped() -> None:
    with pytest.raises(EngineRefused, match="runs on every node"):
        specs.without_container({"Name": "watcher", "Mode": {"Global": {}}})


def test_what_binds_a_service_to_its_node_is_seen() -> None:
    driver = {"Name": "nfs", "Options": {"share": "1"}}
    mounts = [
        {"Type": "bind", "Source": "/srv/data", "Target": "/data"},
        {"Type": "volume", "Source": "cache", "Target": "/cache"},
        {"Type": "volume", "Target": "/shared", "VolumeOptions": {"DriverConfig": driver}},
        {"Type": "tmpfs", "Target": "/tmp"},
    ]
    constraints = ["node.role==worker", "Node.Hostname == web-1", "node.ID==abc"]
    spec = {
        "Name": "shop",
        "Mode": {"Replicated": {"Replicas": 1}},
        "TaskTemplate": {"ContainerSpec": {"Mounts": mounts}, "Placement": {"Constraints": constraints}},
    }
    seen = readings.service({"ID": "1", "Version": {"Index": 7}, "Spec": spec}, [])
    assert seen.mounts == [
        Mount("bind", "/srv/data", "/data"),
        Mount("volume", "cache", "/cache"),
        Mount("volume", "", "/shared", driver="nfs", options={"share": "1"}),
        Mount("tmpfs", "", "/tmp"),
    ]
    assert seen.requirements.plugins == (Plugin("Volume", "nfs"),)
    assert seen.bound_by == ["Node.Hostname == web-1"]
    assert (seen.node_id, seen.version) == ("abc", 7)


def test_labels_that_are_called_like_fields_are_labels() -> None:
    labels = {"ContainerSpec": "x", "Env": "y", "PreviousSpec": "z", "ServiceID": "u", "Status": "v"}
    assert readings.lean_task(dict(labels)) == labels
    assert readings.lean_service(dict(labels)) == labels
    assert readings.lean_service({"Name": "web", "PreviousSpec": {"Name": "web"}, "Env": ["A=1"]}) == {"Name": "web"}
