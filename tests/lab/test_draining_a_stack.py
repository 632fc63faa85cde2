"""A stack that nobody of us deployed, on a real swarm: its worker is emptied of it while its users notice nothing, and
its services are as their owner wrote them when that is over."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import cycle

import pytest

from skyctl.domain.drains import DrainProgress
from skyctl.domain.engine import Document, EngineNode
from skyctl.operations.admin import drain_plans, drains
from tests.support.helpers import TESTS, eventually

from . import images
from .probe import Probe
from .site import Site
from .test_migrations import die_at, say

ASKED = ("web", "api", "slow", "conf", "spread", "careful")
PER_SECOND = 120


def service(image: str = images.HEALTHY, replicas: int = 1, deploy: Document | None = None, **more: object) -> Document:
    deploy = {"replicas": replicas, "endpoint_mode": "dnsrr", **(deploy or {})}
    return {"image": image, "stop_grace_period": "3s", "deploy": deploy, **more}


STACK = {
    "version": "3.8",
    "services": {
        "web": service(replicas=3),
        "api": service(replicas=5),
        "slow": service(images.SLOW, deploy={"placement": {"constraints": ["node.role==worker"]}}),
        "conf": service(configs=["setting"], secrets=["key"]),
        "spread": service(replicas=2, deploy={"placement": {"max_replicas_per_node": 1}}),
        "careful": service(deploy={"update_config": {"order": "stop-first", "failure_action": "rollback"}}),
        "shared": service(volumes=["/tmp:/data"], deploy={"labels": {"skyctl.move": "stop-first"}}),
        "hostport": service(ports=[{"target": 80, "published": 18080, "mode": "host"}]),
        "data": service(images.WEB, volumes=["kept:/data"]),
        "vol": service(images.VOLUME),
        "logs": {"image": images.WEB, "deploy": {"mode": "global", "endpoint_mode": "dnsrr"}},
    },
    "configs": {"setting": {"file": "/etc/hostname"}},
    "secrets": {"key": {"file": "/etc/hostname"}},
    "volumes": {"kept": {}},
    "networks": {"default": {"driver": "overlay", "attachable": True}},
}


@pytest.fixture
def stack(site: Site) -> Iterator[Site]:
    yield site
    site.swarm.manager.run("docker", "stack", "rm", "shop")


def test_a_stack_leaves_its_worker_and_its_users_notice_nothing(stack: Site) -> None:
    site = stack
    south, manager = site.swarm.workers[1], site.swarm.manager
    site.monitor()
    site.until_active("north", "south")
    others = ("south", manager.name)
    for name in others:
        manager.run("docker", "node", "update", "--availability", "pause", name)
    deployed = ("docker", "stack", "deploy", "--resolve-image", "never", "--compose-file", "-", "shop")
    manager.run(*deployed, stdin=json.dumps(STACK).encode())
    on_north = {"web": 3, "api": 5, "spread": 1} | dict.fromkeys(
        ("slow", "conf", "careful", "shared", "hostport", "data", "vol", "logs"), 1
    )
    eventually(lambda: running(site, "north") == on_north)
    for name in others:
        manager.run("docker", "node", "update", "--availability", "active", name)
    eventually(lambda: sum(running(site, name).get("spread", 0) for name in ("north", *others)) == 2)
    eventually(lambda: sum(running(site, name).get("logs", 0) for name in ("north", *others)) == 3)
    before, elsewhere = specs(site), tasks_off(site, "north")
    worker = site.worker("north")
    eventually(lambda: "vol" in left(site))  # once its agent has told of it
    planned = {each.service_name.removeprefix("shop_"): each for each in drain_plans.plan(site.context, [worker.id])}
    assert {name for name, each in planned.items() if each.is_left} == {"data", "vol"}
    assert planned["shared"].way == "stop-first"
    assert planned["careful"].reason == "two containers run for some seconds"
    with Probe(south, "shop_default", *ASKED, per_second=PER_SECOND) as probe:
        drains.drain(site.context, [worker.id], TESTS)
        eventually(lambda: progress(site).is_over)
        told = probe.ended()
    asked, others = (sum(getattr(one, number) for one in told.values()) for number in ("answers", "others"))
    say(f"skyctl drain of a stack: {asked} requests answered, {others} by a second container since the first refused")
    assert {name: one.failures for name, one in told.items()} == {name: {} for name in ASKED}
    assert min(one.answers for one in told.values()) > 100
    assert (progress(site).is_empty, sorted(progress(site).others)) == (False, ["shop_data", "shop_logs", "shop_vol"])
    assert sorted(progress(site).reasons) == [
        "shop_data: it stays: it keeps data on its node: shop_kept",
        "shop_vol: it stays: it keeps data on its node: /data (a volume of its image)",
    ]
    assert running(site, "north") == {"data": 1, "logs": 1, "vol": 1}
    assert elsewhere <= tasks_off(site, "north"), "what ran elsewhere was not touched"
    eventually(lambda: specs(site) == before)
    drains.undrain(site.context, worker.id, TESTS)
    eventually(lambda: node(site, "north").availability == "active")
    assert specs(site) == before

    # Beside it what the swarm does by itself where somebody sets a node to `drain`, which is a drain of ours as well.
    with Probe(manager, "shop_default", *ASKED, per_second=PER_SECOND) as probe:
        manager.run("docker", "node", "update", "--availability", "drain", "south")
        eventually(lambda: site.worker("south").drain_requested_at and progress(site, "south").is_over)
        theirs = probe.ended()
    failed = {name: sum(one.failures.values()) for name, one in theirs.items()}
    say(f"failed requests of the swarm's own drain: {failed}")
    assert failed["slow"], "its only container ended before the new one was healthy"
    assert (progress(site, "south").is_empty, running(site, "south")) == (True, {})
    manager.run("docker", "node", "update", "--availability", "active", "south")
    eventually(lambda: site.worker("south").drain_requested_at is None)
    assert specs(site) == before


def test_whoever_dies_or_changes_it_meanwhile_nothing_of_ours_is_left_in_it(
    site: Site, environment: dict[str, str]
) -> None:
    """The monitor is killed before and after each order and each transaction, and its owner changes the service in the
    middle of the move."""
    first = site.monitor()
    site.until_active("north", "south")
    manager, worker = site.swarm.manager, site.worker("north")
    manager.run("docker", "node", "update", "--availability", "pause", "south")
    manager.run("docker", "node", "update", "--availability", "pause", manager.name)
    options = ("--detach", "--no-resolve-image", "--replicas", "4", "--endpoint-mode", "dnsrr", "--stop-grace-period")
    update = ("--update-order", "stop-first", "--update-failure-action", "rollback", "--update-parallelism", "2")
    manager.run("docker", "service", "create", *options, "1s", *update, "--name", "many", images.HEALTHY)
    eventually(lambda: running(site, "north") == {"many": 4})
    for name in ("south", manager.name):
        manager.run("docker", "node", "update", "--availability", "active", name)
    assert first.stop() == 0
    drains.drain(site.context, [worker.id], TESTS)
    before, boundaries, deaths = specs(site)["many"], cycle((1, 2)), Counter[int]()
    while not progress(site).is_over:
        boundary = next(boundaries)
        deaths[boundary] += die_at(site, boundary, environment | site.environment, "north")
        if sum(deaths.values()) == 6:
            changed = ("--detach", "--no-resolve-image", "--label-add", "owner=said", "many")
            manager.run("docker", "service", "update", *changed)
    assert sum(deaths.values()) > 6
    assert (progress(site).is_empty, running(site, "north")) == (True, {})
    site.monitor()
    eventually(lambda: "owner" in specs(site)["many"] and "node.id" not in specs(site)["many"])
    eventually(lambda: without_label(specs(site)["many"]) == without_label(before))


def without_label(spec: str) -> Document:
    document: Document = json.loads(spec)
    return {**document, "Labels": {name: value for name, value in document["Labels"].items() if name != "owner"}}


def left(site: Site) -> set[str]:
    planned = drain_plans.plan(site.context, [site.worker("north").id])
    return {each.service_name.removeprefix("shop_") for each in planned if each.is_left}


def progress(site: Site, name: str = "north") -> DrainProgress:
    [found] = drains.progress(site.context, [site.worker(name).id])
    return found


def node(site: Site, hostname: str) -> EngineNode:
    [found] = [each for each in site.swarm.engine.observe(()).nodes.values() if each.hostname == hostname]
    return found


def running(site: Site, hostname: str) -> dict[str, int]:
    """By service of the stack, how many of its containers run on a node, and are to."""
    counts: dict[str, int] = {}
    for each in site.swarm.engine.tasks_on([node(site, hostname).id]):
        if each.task.state == "running" and each.task.wanted == "running":
            name = each.service_name.removeprefix("shop_")
            counts[name] = counts.get(name, 0) + 1
    return counts


def tasks_off(site: Site, hostname: str) -> set[str]:
    here = node(site, hostname).id
    seen = site.swarm.engine.observe().services.values()
    return {task.id for each in seen for task in each.tasks if task.state == "running" and task.node_id != here}


def specs(site: Site) -> dict[str, str]:
    """What the engine has of each service, as canonical JSON."""
    ids = {each.id: each.name for each in site.swarm.engine.observe().services.values()}
    documents = {name: site.swarm.engine.read(service_id) for service_id, name in ids.items()}
    return {name: json.dumps(found.spec, sort_keys=True) for name, found in documents.items() if found}
