"""A stack that nobody of us deployed leaves its worker whatever happens meanwhile, on a real swarm."""

import json
import time
from collections.abc import Iterator

import docker
import pytest

from skyctl.domain.engine import Document
from skyctl.operations.admin import drains
from skyctl.swarm.specs import with_placement
from tests.conftest import Cli
from tests.support.helpers import TESTS, eventually

from . import images
from .machines import Node
from .network import Network
from .site import Site
from .test_draining_a_stack import node, progress, running, service, specs

AWAY_SECONDS = 20
STACK: Document = {
    "version": "3.8",
    "services": {
        "web": service(replicas=3),
        "api": service(replicas=4),
        "conf": service(),
        "careful": service(deploy={"update_config": {"order": "stop-first", "failure_action": "rollback"}}),
    },
}
CHANGED: Document = {
    "version": "3.8",
    "services": {
        **STACK["services"],
        "web": service(replicas=3, environment={"SAID": "twice"}),
        "api": service(replicas=2),
        "late": service(),
    },
}


@pytest.fixture
def east(site: Site, lab: Network) -> Iterator[Node]:
    """A third worker."""
    with Node(lab, "east") as east:
        site.swarm.add(east)
        site.join(east)
        yield east
        site.swarm.manager.run("docker", "stack", "rm", "shop")
        site.swarm.forget(east)


def deploy(site: Site, stack: Document) -> None:
    deployed = ("docker", "stack", "deploy", "--resolve-image", "never", "--compose-file", "-", "shop")
    site.swarm.manager.run(*deployed, stdin=json.dumps(stack).encode())


def available(site: Site, availability: str, *names: str) -> None:
    for name in names:
        site.swarm.manager.run("docker", "node", "update", "--availability", availability, name)


def test_its_owner_changes_it_a_node_is_lost_and_the_engine_is_away(site: Site, east: Node) -> None:
    manager = site.swarm.manager
    site.monitor()
    site.until_active("north", "south", "east")
    available(site, "pause", manager.name, "south", "east")
    deploy(site, STACK)
    eventually(lambda: running(site, "north") == {"web": 3, "api": 4, "conf": 1, "careful": 1})
    available(site, "active", "south", "east")

    drains.drain(site.context, [site.worker("north").id], TESTS)
    eventually(lambda: running(site, "east"))
    deploy(site, CHANGED)
    manager.freeze()
    frozen_at = time.monotonic()
    eventually(lambda: time.monotonic() - frozen_at > AWAY_SECONDS)
    manager.thaw()
    east.kill()
    eventually(lambda: progress(site).is_over)

    assert (progress(site).is_empty, running(site, "north")) == (True, {})
    eventually(lambda: running(site, "south") == {"web": 3, "api": 2, "conf": 1, "careful": 1, "late": 1})
    eventually(lambda: "node.id" not in "".join(specs(site).values()))
    after = specs(site)
    deploy(site, CHANGED)
    assert specs(site) == after, "there is nothing in it but what its owner wrote"


def test_an_owners_way_back_leads_past_all_our_moves(site: Site, cli: Cli) -> None:
    manager = site.swarm.manager
    site.monitor()
    site.until_active("north", "south")
    available(site, "pause", manager.name)
    options = ("--detach", "--no-resolve-image", "--replicas", "2", "--endpoint-mode", "dnsrr", "--label", "said=once")
    manager.run("docker", "service", "create", *options, "--name", "many", images.HEALTHY)
    eventually(lambda: sum(running(site, name).get("many", 0) for name in ("north", "south")) == 2)
    first = specs(site)
    manager.run("docker", "service", "update", "--detach", "--no-resolve-image", "--label-add", "said=twice", "many")
    second = specs(site)
    for name in ("north", "south", "north"):
        worker = site.worker(name)
        drains.drain(site.context, [worker.id], TESTS)
        eventually(lambda worker=worker: drains.progress(site.context, [worker.id])[0].is_over)  # type: ignore[misc]
        assert (running(site, name), specs(site)) == ({}, second)
        drains.undrain(site.context, worker.id, TESTS)
        eventually(lambda name=name: node(site, name).availability == "active")  # type: ignore[misc]
    done = cli("services", "rollback", "many", "--yes", **site.environment)
    assert done.returncode == 0, done.stderr
    assert specs(site) == first


def test_what_was_created_without_a_placement_is_moved_and_the_manager_lives(site: Site) -> None:
    """As programs create services; the command line gives each an empty one."""
    manager = site.swarm.manager
    site.monitor()
    site.until_active("north", "south")
    available(site, "pause", manager.name, "south")
    client = docker.APIClient(manager.engine)
    template = {"ContainerSpec": {"Image": images.WEB}}
    made = client.create_service(  # type: ignore[no-untyped-call]
        template, "bare", mode={"Replicated": {"Replicas": 2}}, endpoint_spec={"Mode": "dnsrr"}
    )
    client.close()
    eventually(lambda: running(site, "north") == {"bare": 2})
    before = site.swarm.engine.read(made["ID"])
    available(site, "active", "south")
    for source, target in (("north", "south"), ("south", "north")):
        worker = site.worker(source)
        drains.drain(site.context, [worker.id], TESTS)
        eventually(lambda worker=worker: drains.progress(site.context, [worker.id])[0].is_over)  # type: ignore[misc]
        assert (running(site, source), running(site, target)) == ({}, {"bare": 2})
        drains.undrain(site.context, worker.id, TESTS)
        eventually(lambda source=source: node(site, source).availability == "active")  # type: ignore[misc]
    after = site.swarm.engine.read(made["ID"])
    assert before
    assert after
    assert "Placement" not in before.spec["TaskTemplate"]
    assert after.spec == with_placement(before.spec)
