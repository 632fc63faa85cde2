"""Claims of nodes on a real swarm: what root of one worker host says of the manager's node and of another host's."""

import json
import sys
from pathlib import Path

from skyctl.domain.drains import DrainOptions
from skyctl.operations.admin import drains, workers
from skyctl.operations.agents import invitations
from tests.support.helpers import TESTS, eventually

from .machines import Node
from .site import Site
from .swarm import Swarm

REGISTER = """
import json, sys, urllib.request
url, token, body = sys.argv[1:]
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=60) as answer:
    print(answer.status)
"""


def claim(site: Site, thief: Node, name: str, node_id: str, victim: Node) -> None:
    """Register from the thief's machine as the victim, whose hostname and address are no secret."""
    invited = invitations.invite(site.context, TESTS, name)
    said = {
        "hostname": victim.name,
        "ipAddress": victim.address,
        "capacity": {"cpuCores": 100, "memoryMb": 100_000, "diskGb": 100},
        "metadata": {"swarmNodeId": node_id, "machineId": name, "pool": "vault"},
    }
    path = f"{site.url}/api/workers/register"
    assert thief.run(sys.executable, "-c", REGISTER, path, invited.token, json.dumps(said)).strip() == "201"


def test_the_managers_own_host_is_a_worker_by_up_and_by_nothing_else(swarm: Swarm, open_folder: Path) -> None:
    folder, manager = open_folder / "up", swarm.manager
    skyctl = ("env", f"SKYCTL_DATA_DIR={folder}", sys.executable, "-m", "skyctl")

    def workers_of_up() -> list[dict[str, object]]:
        listed: list[dict[str, object]] = json.loads(manager.run(*skyctl, "workers", "list", "-o", "json"))["workers"]
        return listed

    up = manager.spawn(*skyctl, "up")
    try:
        eventually((folder / "agent.json").exists)
        eventually(lambda: [worker["swarmNodeConfirmedAt"] for worker in workers_of_up()] not in ([], [None]))
        head = manager.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip()
        assert [worker["swarmNodeId"] for worker in workers_of_up()] == [head]
    finally:
        up.terminate()
        up.wait()
        eventually(lambda: not (folder / "postgres/data/postmaster.pid").exists())


def test_a_host_becomes_neither_the_manager_nor_another_host(site: Site) -> None:
    north, south = site.swarm.workers
    head = site.swarm.manager.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip()
    claim(site, north, "as-manager", head, site.swarm.manager)
    claim(site, north, "as-south", site.swarm.ids["south"], south)
    site.monitor()
    site.until_active("north", "south")
    eventually(lambda: all(site.worker(name).swarm_node_trouble for name in ("as-manager", "as-south")))
    assert site.worker("as-manager").swarm_node_trouble == "the node is a manager of the swarm"
    thieves = [site.worker(name).id for name in ("as-manager", "as-south")]
    drains.drain(site.context, thieves, TESTS, DrainOptions())
    eventually(lambda: all(drain.is_over for drain in drains.progress(site.context, thieves)))
    nodes = site.swarm.engine.observe(()).nodes
    assert {node.availability for node in nodes.values()} == {"active"}
    for thief in thieves:
        workers.remove(site.context, thief, TESTS)
    assert set(nodes) == set(site.swarm.engine.observe(()).nodes)
    assert site.worker("north").confirmed_node == site.swarm.ids["north"]
    # what the engines say of themselves bounds what the site's workers say
    assert all(node.capacity.cpu_cores < site.worker("south").capacity.cpu_cores for node in nodes.values())
    site.deploy("web", to="south")
    assert site.running() == {"web": ["south"]}
