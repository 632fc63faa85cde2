"""How long it takes to move 20 services on a real swarm, against the least that does it, in one run:

ours      `drain` of a worker with a real monitor: placed, each state a transaction, until the worker is noted as empty
bare      a loop over the docker SDK with the same parallelism: the constraint swapped, then waited for the new
          and the old

Both end when the old containers have stopped; at most 1.3 x. Exit code 1 where that is missed. It starts the lab's
machines (tests/lab): root, on Debian, with a Docker engine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import psycopg
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from skyctl import wiring  # noqa: E402
from skyctl.domain.cluster import Actor, Capacity  # noqa: E402
from skyctl.domain.states import EndpointMode  # noqa: E402
from skyctl.domain.workloads import ServiceSpec  # noqa: E402
from skyctl.host.postgres import EmbeddedPostgres  # noqa: E402
from skyctl.operations.admin import deploy, drains, schema, services  # noqa: E402
from skyctl.operations.shared.context import Context  # noqa: E402
from skyctl.settings import Settings  # noqa: E402
from tests.lab import images  # noqa: E402
from tests.lab.machines import Node  # noqa: E402
from tests.lab.network import Network  # noqa: E402
from tests.lab.swarm import Swarm  # noqa: E402

SERVICES, AT_ONCE, ROUNDS, TIMES_BARE = 20, 4, 3, 1.3
POLL_SECONDS = 0.1
ACTOR = Actor("benchmark")
ADD_WORKER = """
    INSERT INTO container_workers
        (name, hostname, ip_address, auth_token_hash, status, swarm_node_id, capacity, last_heartbeat_at)
    VALUES (%s, %s, '10.0.0.1', 'none', 'active', %s, '{"cpuCores": 64, "memoryMb": 65536, "diskGb": 1000}',
            now() + interval '1 d')
    RETURNING id
"""


def ours(context: Context, connection: psycopg.Connection, source: str) -> float:
    """Drain the worker; seconds until it is noted as empty."""
    [worker_id] = connection.execute("SELECT id FROM container_workers WHERE name = %s", (source,)).fetchone() or ()
    started = time.perf_counter()
    drains.drain(context, [worker_id], ACTOR)
    while not drains.progress(context, [worker_id])[0].is_over:
        time.sleep(POLL_SECONDS)
    took = time.perf_counter() - started
    drains.undrain(context, worker_id, ACTOR)
    return took


def bare(client: Any, source: str, target: str) -> float:
    """Move every service by the SDK; seconds until all old containers have stopped."""

    def move(service_id: str) -> None:
        found = client.inspect_service(service_id)
        spec = found["Spec"]
        spec["TaskTemplate"]["Placement"]["Constraints"] = [f"node.id=={target}"]
        url = client._url("/services/{0}/update", service_id)
        client._post_json(url, data=spec, params={"version": found["Version"]["Index"]}).raise_for_status()
        while not is_there(client.tasks({"service": service_id})):
            time.sleep(POLL_SECONDS)

    def is_there(tasks: list[dict[str, Any]]) -> bool:
        states = [(task["NodeID"], task["Status"]["State"]) for task in tasks if "NodeID" in task]
        left = [state for node, state in states if node == source and state in ("running", "starting", "preparing")]
        return (target, "running") in states and not left

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(move, [service["ID"] for service in client.services()]))
    return time.perf_counter() - started


def rounds(context: Context, connection: psycopg.Connection, swarm: Swarm) -> list[tuple[float, float]]:
    """Of each round the seconds of ours and of the bare loop, one way and back."""
    organization = services.organization(context, None, make=True)
    for number in range(SERVICES):
        spec = ServiceSpec(f"web{number}", images.WEB, Capacity(0.05, 16, 0.1), endpoint_mode=EndpointMode.DNSRR)
        deploy.deploy(context, ACTOR, organization, spec)
    north, south = swarm.ids["north"], swarm.ids["south"]
    measured = []
    with closing(docker.APIClient(swarm.manager.engine)) as client:
        settled(connection)
        ours(context, connection, "south")  # all are on the northern one then
        for _ in range(ROUNDS):
            there = ours(context, connection, "north")
            measured.append((there, bare(client, south, north)))
            settled(connection, on="north")
    return measured


def settled(connection: psycopg.Connection, on: str | None = None) -> None:
    """Wait until every service runs, on this worker, as far as the monitor knows."""
    there = (
        "SELECT count(*) FROM container_services s JOIN container_deployments d ON d.id = s.current_deployment_id "
        "JOIN container_workers w ON w.id = d.worker_id WHERE s.status = 'running' AND (w.name = %s OR %s)"
    )
    while connection.execute(there, (on, on is None)).fetchone() != (SERVICES,):
        time.sleep(POLL_SECONDS)


def measure(lab: Network, folder: Path, url: str) -> list[tuple[float, float]]:
    """Boot a swarm, run a monitor, and measure."""
    with Node(lab, "manager") as manager, Node(lab, "north") as north, Node(lab, "south") as south:
        manager.run("docker", "swarm", "init", "--advertise-addr", manager.address)
        swarm = Swarm(manager, [north, south])
        swarm.engine.set_availability(manager.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip(), "pause")
        settings = Settings(
            folder, database_url=url, docker_host=manager.engine, encrypt_networks=False, jwt_secret="s" * 32
        )
        context = wiring.connect(settings, url)
        schema.initialize(context)
        environment = {
            **os.environ,
            "SKYCTL_DATABASE_URL": url,
            "SKYCTL_JWT_SECRET": "s" * 32,
            "DOCKER_HOST": manager.engine,
            "SKYCTL_ENCRYPT_NETWORKS": "false",
            "SKYCTL_MIGRATIONS_INTO_ONE": str(AT_ONCE),
        }
        command = [sys.executable, "-m", "skyctl", "monitor", "--interval", "5"]
        with psycopg.connect(url, autocommit=True) as connection:
            for name, node_id in swarm.ids.items():
                connection.execute(ADD_WORKER, (name, name, node_id))
            monitor = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            try:
                return rounds(context, connection, swarm)
            finally:
                monitor.terminate()
                monitor.wait()
                context.db.close()


def main() -> None:
    """Measure, and say how it compares."""
    lab = Network()
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-", dir="/var/lib") as name:
        Path(name).chmod(0o755)
        try:
            with EmbeddedPostgres(Path(name)).running() as url:
                measured = measure(lab, Path(name), url)
        finally:
            lab.close()
    ratios = [one / other for one, other in measured]
    table = Table("", "seconds (median)", "least to most", title=f"moving {SERVICES} services, {AT_ONCE} at once")
    for label, times in zip(("ours", "bare SDK loop"), zip(*measured, strict=True), strict=True):
        table.add_row(label, f"{statistics.median(times):.1f}", f"{min(times):.1f} to {max(times):.1f}")
    Console().print(table)
    ratio = statistics.median(ratios)
    Console().print(f"{ratio:.2f} x the bare loop ({min(ratios):.2f} to {max(ratios):.2f}), at most {TIMES_BARE}")
    sys.exit(ratio > TIMES_BARE)


if __name__ == "__main__":
    main()
