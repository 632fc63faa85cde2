"""The rule of what Swarm puts on which node, against a real Swarm: each kind of requirement, on every node."""

from collections.abc import Iterable, Iterator
from typing import Any

import docker
import pytest

from skyctl.domain.engine import MEGABYTE, EngineService, EngineTask, NodeUse
from skyctl.rules import fit
from skyctl.rules.tasks import runs
from tests.support.helpers import eventually

from . import images
from .machines import Node
from .network import Network
from .swarm import Swarm

CORE = 10**9


class Odd(Node):
    """A node whose engine has a label and generic resources."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--label=disk=fast", "--node-generic-resource=gpu=2"]


@pytest.fixture
def odd(lab: Network, swarm: Swarm) -> Iterator[Swarm]:
    """The swarm with one more node, of which things can be asked that no other has."""
    with Odd(lab, "odd") as node:
        swarm.add(node)
        swarm.manager.run("docker", "node", "update", "--label-add", "zone=a", swarm.ids["north"])
        yield swarm
        swarm.manager.run("docker", "node", "update", "--label-rm", "zone", swarm.ids["north"])
        swarm.clear()
        swarm.forget(node)


@pytest.fixture
def client(swarm: Swarm) -> Iterator[docker.APIClient]:
    client = docker.APIClient(swarm.manager.engine)
    yield client
    client.close()


def create(
    client: docker.APIClient,
    name: str,
    template: dict[str, Any] | None = None,
    *,
    ports: list[dict[str, Any]] | None = None,
    image: str = images.ABSENT,
    mode: dict[str, Any] | None = None,
) -> str:
    """Create a service on every node, of an image that none has: who is to try it is all that matters."""
    container = {"Image": image, "Command": ["sleep", "1000000"], **(template or {}).get("ContainerSpec", {})}
    whole = {"RestartPolicy": {"Condition": "none"}, **(template or {}), "ContainerSpec": container}
    endpoint = {"Mode": "dnsrr", "Ports": ports or []}
    made = client.create_service(  # type: ignore[no-untyped-call]
        whole, name, mode=mode or {"Global": {}}, endpoint_spec=endpoint
    )
    return str(made["ID"])


def port(published: int, protocol: str = "tcp") -> list[dict[str, Any]]:
    return [{"Protocol": protocol, "TargetPort": 80, "PublishedPort": published, "PublishMode": "host"}]


def placed(*constraints: str, **more: Any) -> dict[str, Any]:
    return {"Placement": {"Constraints": list(constraints), **more}}


def reserved(**amounts: Any) -> dict[str, Any]:
    return {"Resources": {"Reservations": amounts}}


def gpus(count: int) -> dict[str, Any]:
    return reserved(GenericResources=[{"DiscreteResourceSpec": {"Kind": "gpu", "Value": count}}])


def constraints_for(swarm: Swarm) -> list[str]:
    north, address = swarm.ids["north"], swarm.workers[0].address
    return [
        f"node.id=={north}",
        f"Node.ID != {north.upper()}",
        "node.hostname==NORTH",
        "node.hostname!=north",
        "NODE.ROLE==Manager",
        "node.role != manager",
        f"node.ip=={address}",
        f"node.ip!={address}",
        f"node.ip=={address}/32",
        f"node.ip!={address}/24",
        "node.ip!=nonsense",
        "node.platform.os==Linux",
        "node.platform.arch!=x86_64",
        "node.labels.zone==A",
        "Node.Labels.zone!=a",
        "node.labels.Zone==a",
        "engine.labels.disk==FAST",
        "engine.labels.disk!=fast",
        "node.nonsense!=a",
    ]


def probes(swarm: Swarm, use: NodeUse) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """What is asked of every node: a template and the ports that are published, by a name. `use` is what is left of the
    node where most is reserved."""
    volume = {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"DriverConfig": {"Name": "absent"}}}
    by_name: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
        "plain": ({}, []),
        "arm": (placed(Platforms=[{"Architecture": "arm64", "OS": "linux"}]), []),
        "amd": (placed(Platforms=[{"OS": "windows"}, {"Architecture": "amd64", "OS": "linux"}]), []),
        "anyos": (placed(Platforms=[{"Architecture": "x86_64"}]), []),
        "volume": ({"ContainerSpec": {"Mounts": [volume]}}, []),
        "logs": ({"LogDriver": {"Name": "absent"}}, []),
        "nologs": ({"LogDriver": {"Name": "none"}}, []),
        "gpu": (gpus(1), []),
        "gpus": (gpus(3), []),
        "memory": (reserved(MemoryBytes=use.memory + 1), []),
        "fitting": (reserved(MemoryBytes=use.memory), []),
        "cores": (reserved(NanoCPUs=1000 * CORE), []),
        "tcp": ({}, port(18080)),
        "udp": ({}, port(18080, "udp")),
        "both": (placed("node.labels.zone==a", "node.role==worker"), []),
    }
    return by_name | {f"constraint{number}": (placed(each), []) for number, each in enumerate(constraints_for(swarm))}


def is_decided(service: EngineService) -> bool:
    """Whether the scheduler has said of each of its tasks what becomes of it."""
    return all(task.state not in ("new", "pending") or task.error for task in service.tasks)


def told(tasks: Iterable[EngineTask]) -> tuple[bool, str]:
    """Whether a node was given one of these tasks, and else why not, in Swarm's words; a service that runs on every
    node has none where a constraint does not hold."""
    words = "scheduling constraints not satisfied"
    for task in tasks:
        if task.state not in ("new", "pending"):
            return True, ""
        words = task.error
    return False, words


def test_the_rule_says_of_every_node_what_swarm_does(odd: Swarm, client: docker.APIClient) -> None:
    here, replicated = odd.ids, {"Replicated": {"Replicas": 1}}
    north = odd.engine.observe(()).nodes[here["north"]]
    hog = placed(f"node.id=={north.id}") | reserved(MemoryBytes=int(north.capacity.memory_mb * MEGABYTE * 0.6))
    create(client, "hog", hog, image=images.IMAGE, mode=replicated)
    publisher = placed(f"node.id=={here['south']}")
    create(client, "publisher", publisher, ports=port(18080), image=images.IMAGE, mode=replicated)
    eventually(lambda: all(any(map(runs, each.tasks)) for each in odd.engine.observe().services.values()))
    before = odd.engine.observe()
    uses = fit.node_uses(before)
    asked = {
        create(client, name, template, ports=ports): name
        for name, (template, ports) in probes(odd, uses[north.id]).items()
    }
    last = create(client, "last")  # of which Swarm decides after all others

    def decided() -> bool:
        now = odd.engine.observe()
        # where a node has refused its task already, that is no longer wanted
        tried = {task.node_id for task in now.services[last].tasks}
        return tried == set(now.nodes) and all(map(is_decided, now.services.values()))

    eventually(decided)
    seen = odd.engine.observe()
    wrong, words = [], set()
    for service_id, name in asked.items():
        service = seen.services[service_id]
        for node in before.nodes.values():
            verdict = fit.why_not(service.requirements, service_id, node, uses[node.id])
            is_given, swarms = told(task for task in service.tasks if task.node_id == node.id)
            words.add(verdict.partition(":")[0])
            if is_given is bool(verdict) or verdict.partition(":")[0] not in swarms:
                wrong.append((name, node.hostname, verdict, swarms))
    assert not wrong
    assert words == {
        "",
        "scheduling constraints not satisfied",
        "insufficient resources",
        "missing plugin",
        "unsupported platform",
        "host-mode port already in use",
    }


def test_a_second_replica_and_a_paused_node_are_refused_as_swarm_does(swarm: Swarm, client: docker.APIClient) -> None:
    north, south = swarm.ids.values()
    template = placed(f"node.id=={north}", MaxReplicas=1)
    single = create(client, "single", template, image=images.IMAGE, mode={"Replicated": {"Replicas": 2}})

    def refused(service_id: str) -> str:
        tasks = swarm.engine.observe().services[service_id].tasks
        return next((task.error for task in tasks if task.state == "pending" and task.error), "")

    eventually(lambda: refused(single) and any(map(runs, swarm.engine.observe().services[single].tasks)))
    seen = swarm.engine.observe()
    uses, asks = fit.node_uses(seen), fit.unpinned(seen.services[single].requirements)
    assert fit.why_not(asks, single, seen.nodes[north], uses[north]) == "max replicas per node limit exceeded: 1"
    assert "max replicas per node limit exceed" in refused(single)
    assert fit.why_not(asks, single, seen.nodes[south], uses[south]) == ""

    swarm.engine.set_availability(south, "pause")
    waiting = create(client, "waiting", placed(f"node.id=={south}"), mode={"Replicated": {"Replicas": 1}})
    eventually(lambda: refused(waiting))
    assert "1 node not available for new tasks" in refused(waiting)
    paused = swarm.engine.observe(()).nodes[south]
    assert fit.why_not(asks, single, paused, uses[south]) == "its node takes nothing new"
