"""How long it takes to empty a node of 50 containers of 20 services on a real swarm, against the least that does it, in
one run:

ours      `drain` of a worker with a real monitor: each state a transaction, what is the owner's given back
bare      a loop over the docker SDK with the same parallelism: a constraint that excludes the node, then waited for the
          new containers and the end of the old ones

Nobody manages the services. Both end when the old containers have stopped; at most 1.1 x. Exit code 1 where that is
missed. It starts the lab's machines (tests/lab): root, on Debian, with a Docker engine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any

import docker
import psycopg
from _limits import Limit, hold
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from skyctl import wiring  # noqa: E402
from skyctl.domain.cluster import Actor  # noqa: E402
from skyctl.domain.engine import Document  # noqa: E402
from skyctl.host.postgres import EmbeddedPostgres  # noqa: E402
from skyctl.operations.admin import drains, schema  # noqa: E402
from skyctl.operations.shared.context import Context  # noqa: E402
from skyctl.rules.owner_specs import START_FIRST, excluding  # noqa: E402
from skyctl.settings import Settings  # noqa: E402
from tests.lab import images  # noqa: E402
from tests.lab.machines import Node  # noqa: E402
from tests.lab.network import Network  # noqa: E402
from tests.lab.swarm import Swarm  # noqa: E402

AT_ONCE, ROUNDS, TIMES_BARE = 4, 5, 1.1
REPLICAS = [1, 2, 3, 4] * 5
POLL_SECONDS = 0.1
SECRET = token_hex(32)
ACTOR = Actor("benchmark")
COMPLETED = """
    SELECT count(*) FROM container_migrations m JOIN owner_specs o USING (swarm_service_id)
    WHERE m.state = 'completed' AND o.changed_at IS NULL
"""
ADD_WORKER = """
    INSERT INTO container_workers
        (name, hostname, ip_address, auth_token_hash, status, swarm_node_id, swarm_node_confirmed, capacity,
         last_heartbeat_at)
    VALUES (%s, %s, '10.0.0.1', 'none', 'active', %s, %s, '{"cpuCores": 64, "memoryMb": 65536, "diskGb": 1000}',
            now() + interval '1 d')
    RETURNING id
"""


def ours(context: Context, connection: psycopg.Connection, source: str) -> float:
    """Drain the worker; seconds until all is moved and given back. No agent counts there, so the drain itself would
    wait for one."""
    [worker_id] = connection.execute("SELECT id FROM container_workers WHERE name = %s", (source,)).fetchone() or ()
    [before] = connection.execute(COMPLETED).fetchone() or (0,)
    started = time.perf_counter()
    drains.drain(context, [worker_id], ACTOR)
    while connection.execute(COMPLETED).fetchone() != (before + len(REPLICAS),):
        time.sleep(POLL_SECONDS)
    took = time.perf_counter() - started
    drains.undrain(context, worker_id, ACTOR)
    return took


def bare(client: Any, source: str) -> float:
    """Keep every service off a node by the SDK; seconds until all old containers have stopped."""

    def leave(service_id: str) -> None:
        before = update(client, service_id, lambda spec: excluding(spec, source, START_FIRST))
        while not is_off(client, service_id, source):
            time.sleep(POLL_SECONDS)
        update(client, service_id, lambda _: before)

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(leave, [service["ID"] for service in client.services()]))
    return time.perf_counter() - started


def update(client: Any, service_id: str, changed: Callable[[Document], Document]) -> Document:
    """Change a service; what it was before."""
    found = client.inspect_service(service_id)
    url = client._url("/services/{0}/update", service_id)
    parameters = {"version": found["Version"]["Index"]}
    client._post_json(url, data=changed(found["Spec"]), params=parameters).raise_for_status()
    return dict(found["Spec"])


def is_off(client: Any, service_id: str, source: str) -> bool:
    """Tell whether all that a service is to have runs, and nothing of it is left on a node."""
    wanted = client.inspect_service(service_id)["Spec"]["Mode"]["Replicated"]["Replicas"]
    tasks = [(task.get("NodeID"), task["Status"]["State"]) for task in client.tasks({"service": service_id})]
    running = [node for node, state in tasks if state == "running"]
    left = [state for node, state in tasks if node == source and state in ("running", "starting", "preparing")]
    return len(running) == wanted and not left


def rounds(context: Context, connection: psycopg.Connection, swarm: Swarm) -> list[tuple[float, float]]:
    """Of each round the seconds of ours and of the bare loop, one way and back."""
    measured = []
    opened: Any = docker.APIClient(swarm.manager.engine)
    with closing(opened) as client:
        swarm.engine.set_availability(swarm.ids["south"], "pause")
        for number, replicas in enumerate(REPLICAS):
            container = docker.types.ContainerSpec(images.WEB)
            client.create_service(
                docker.types.TaskTemplate(container, restart_policy=docker.types.RestartPolicy("any")),
                name=f"web{number}",
                mode=docker.types.ServiceMode("replicated", replicas),
            )
        settled(client, off=swarm.ids["south"])
        swarm.engine.set_availability(swarm.ids["south"], "active")
        for _ in range(ROUNDS):
            there = ours(context, connection, "north")
            settled(client, off=swarm.ids["north"])
            measured.append((there, bare(client, swarm.ids["south"])))
            settled(client, off=swarm.ids["south"])
    return measured


def settled(client: Any, off: str) -> None:
    """Wait until every service runs, with nothing on this node, and no update goes on."""
    while not all(is_off(client, service["ID"], off) for service in client.services()):
        time.sleep(POLL_SECONDS)


def measure(lab: Network, folder: Path, url: str) -> list[tuple[float, float]]:
    """Boot a swarm, run a monitor, and measure."""
    with Node(lab, "manager") as manager, Node(lab, "north") as north, Node(lab, "south") as south:
        manager.run("docker", "swarm", "init", "--advertise-addr", manager.address)
        swarm = Swarm(manager, [north, south])
        swarm.engine.set_availability(manager.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip(), "pause")
        settings = Settings(
            folder, database_url=url, docker_host=manager.engine, encrypt_networks=False, jwt_secret=SECRET
        )
        context = wiring.connect(settings, url)
        schema.initialize(context)
        environment = {
            **os.environ,
            "SKYCTL_DATABASE_URL": url,
            "SKYCTL_JWT_SECRET": SECRET,
            "DOCKER_HOST": manager.engine,
            "SKYCTL_ENCRYPT_NETWORKS": "false",
            "SKYCTL_MIGRATIONS_INTO_ONE": str(AT_ONCE),
        }
        command = [sys.executable, "-m", "skyctl", "monitor", "--interval", "5"]
        with psycopg.connect(url, autocommit=True) as connection:
            for name, node_id in swarm.ids.items():
                connection.execute(ADD_WORKER, (name, name, node_id, node_id))
            monitor = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            assert monitor.stderr
            print("monitor:", monitor.stderr.readline(), end="")
            threading.Thread(target=monitor.stderr.read, daemon=True).start()
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
    table = Table(
        "",
        "seconds (median)",
        "least to most",
        title=f"{sum(REPLICAS)} containers of {len(REPLICAS)} services, {AT_ONCE} services at once",
    )
    for label, times in zip(("ours", "bare SDK loop"), zip(*measured, strict=True), strict=True):
        table.add_row(label, f"{statistics.median(times):.1f}", f"{min(times):.1f} to {max(times):.1f}")
    Console().print(table)
    ratio = statistics.median(ratios)
    Console().print(f"{ratio:.2f} x the bare loop ({min(ratios):.2f} to {max(ratios):.2f}), at most {TIMES_BARE}")
    hold(Limit("a drain, against a bare loop", ratio, TIMES_BARE, "x"))


if __name__ == "__main__":
    main()
