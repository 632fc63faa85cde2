"""What a look of the monitor at a large swarm costs, in one run:

pass      over 2,000 services under management with 10,000 containers on 200 nodes: at most 1 s (median)
memory    of the process that takes it: at most 150 MB
bare      the same documents fetched and parsed, and nothing else: a ratio

A process of its own plays the engine: it has documents as a real one shows them. Exit code 1 where a limit is missed.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from uuid import UUID

import psycopg
from _limits import Limit, hold

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from skyctl import wiring  # noqa: E402
from skyctl.domain.cluster import Capacity  # noqa: E402
from skyctl.domain.engine import EngineSpec  # noqa: E402
from skyctl.operations.admin import schema, services  # noqa: E402
from skyctl.operations.monitor import migrations  # noqa: E402
from skyctl.operations.monitor import services as monitor_services  # noqa: E402
from skyctl.operations.shared import leadership  # noqa: E402
from skyctl.operations.shared.context import Context  # noqa: E402
from skyctl.settings import Settings  # noqa: E402
from skyctl.swarm import SwarmEngine, specs  # noqa: E402

SERVICES, REPLICAS, NODES, ROUNDS = 2_000, 5, 200, 7
MOST_SECONDS, MOST_MB = 1.0, 150.0
AT = "2026-11-01T10:00:00.000000000Z"
WORKERS = """
    INSERT INTO container_workers (name, hostname, ip_address, auth_token_hash, status, swarm_node_id,
        swarm_node_confirmed, capacity, last_heartbeat_at)
    SELECT 'w' || n, 'w' || n, '10.0.0.1', 'none', 'active', 'node' || n, 'node' || n,
           '{"cpuCores": 64, "memoryMb": 65536, "diskGb": 1000}', now() + interval '1 d'
    FROM generate_series(0, %s - 1) AS n
"""
ROWS = """
    WITH made AS (
        INSERT INTO container_services (id, organization_id, name, slug, status, current_deployment_id)
        SELECT md5('s' || n)::uuid, %(organization)s, 'web' || n, 'web' || n, 'running', md5('d' || n)::uuid
        FROM generate_series(0, %(services)s - 1) AS n RETURNING id)
    INSERT INTO container_deployments (id, service_id, worker_id, image_tag, status, swarm_service_id, created_as,
                                       by_skyctl, container_id)
    SELECT md5('d' || n)::uuid, md5('s' || n)::uuid, NULL, 'app:1', 'running', 'service' || n, md5('d' || n)::uuid,
           true, lpad(n::text, 64, '0')
    FROM generate_series(0, %(services)s - 1) AS n
"""


def documents(ids: dict[str, tuple[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """What the engine lists; of each service its id and that of its deployment."""
    nodes = [
        {
            "ID": f"node{number}",
            "Version": {"Index": 10},
            "Spec": {"Role": "worker", "Availability": "active", "Labels": {"zone": f"z{number % 3}"}},
            "Description": {
                "Hostname": f"w{number}",
                "Platform": {"Architecture": "x86_64", "OS": "linux"},
                "Resources": {"NanoCPUs": 64 * 10**9, "MemoryBytes": 2**36},
                "Engine": {"EngineVersion": "28.5", "Plugins": [{"Type": "Volume", "Name": "local"}]},
            },
            "Status": {"State": "ready", "Addr": "10.0.0.1"},
        }
        for number in range(NODES)
    ]
    listed, tasks = [], []
    for number, (name, (service_id, deployment_id)) in enumerate(ids.items()):
        labels = {"skypanel.service.id": service_id, "skypanel.deployment.id": deployment_id}
        environment = {f"VARIABLE_{each}": "some value" * 3 for each in range(10)}
        spec = EngineSpec(name, "net", name, "node0", "app:1", Capacity(0.1, 64), labels, {}, environment)
        document = specs.service(spec, "network")
        document["Mode"], document["TaskTemplate"]["Placement"] = {"Replicated": {"Replicas": REPLICAS}}, {}
        version = {"Index": 100 + number}
        about = {"Version": version, "CreatedAt": AT, "UpdatedAt": AT}
        listed.append({"ID": name, **about, "Spec": document, "Endpoint": {}})
        tasks += [
            {
                "ID": f"task{number}-{slot}",
                **about,
                "Spec": document["TaskTemplate"],
                "ServiceID": name,
                "Slot": slot,
                "NodeID": f"node{(number + slot) % NODES}",
                "Status": {
                    "Timestamp": AT,
                    "State": "running",
                    "Message": "started",
                    "ContainerStatus": {"ContainerID": f"{number:064d}", "PID": 1, "ExitCode": 0},
                },
                "DesiredState": "running",
            }
            for slot in range(REPLICAS)
        ]
    return {"/nodes": nodes, "/services": listed, "/tasks": tasks}


def serve(socket: str) -> None:
    """Play the engine, with the documents that stand in the standard input."""
    bodies = {path: json.dumps(found).encode() for path, found in json.load(sys.stdin).items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = "/" + self.path.partition("?")[0].rpartition("/")[2]
            body = bodies.get(path, b'{"ApiVersion": "1.41"}')
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    with Server(socket, Handler) as server:
        server.serve_forever()


def engine_ids() -> dict[str, tuple[str, str]]:
    """The services by the engine's id, each with our ids of it and of its deployment."""
    import hashlib

    def of(text: str) -> str:
        return str(UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()))

    return {f"service{number}": (of(f"s{number}"), of(f"d{number}")) for number in range(SERVICES)}


def measure(context: Context) -> list[float]:
    """Seconds of the passes."""
    term = leadership.lead(context, "benchmark", lambda _: True)
    assert term
    passes = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        migrations.reconcile_migrations(term)
        told, _ = monitor_services.reconcile_services(term, all_of_them=True)
        passes.append(time.perf_counter() - started)
        assert not told, told[:2]
    return passes


def fetch(engine: SwarmEngine) -> float:
    """Seconds in which the same documents are fetched and parsed."""
    started = time.perf_counter()
    for path in ("/nodes", "/services", "/tasks"):
        engine._connection.get(path)
    return time.perf_counter() - started


def main() -> None:
    """Measure, and say whether the limits are kept. What a monitor does not import, the process that is measured does
    not."""
    from rich.console import Console
    from rich.table import Table

    from skyctl.host.postgres import EmbeddedPostgres

    with tempfile.TemporaryDirectory(prefix="skyctl-bench-", dir="/var/lib") as name:
        Path(name).chmod(0o755)  # PostgreSQL runs as another user
        folder, socket = Path(name), f"{name}/docker.sock"
        ids = engine_ids()
        playing = subprocess.Popen([sys.executable, __file__, socket], stdin=subprocess.PIPE, text=True)
        assert playing.stdin
        json.dump(documents(ids), playing.stdin)
        playing.stdin.close()
        while not Path(socket).exists():
            time.sleep(0.05)
        try:
            with EmbeddedPostgres(folder / "data").running() as url:
                passes, bare, memory = in_a_process(folder, url, socket)
        finally:
            playing.terminate()
            playing.wait()
    median, least = statistics.median(passes), statistics.median(bare)
    table = Table("", "median", "least to most", title=f"{SERVICES} services, {SERVICES * REPLICAS} containers")
    table.add_row("pass (s)", f"{median:.2f}", f"{min(passes):.2f} to {max(passes):.2f}")
    table.add_row("fetched and parsed (s)", f"{least:.2f}", f"{min(bare):.2f} to {max(bare):.2f}")
    table.add_row("memory (MB)", f"{memory:.0f}", "")
    Console().print(table, f"{median / least:.2f} x the documents alone; at most {MOST_SECONDS} s and {MOST_MB:.0f} MB")
    hold(Limit("a pass", median, MOST_SECONDS, "s"), Limit("its memory", memory, MOST_MB, "MB"))


def in_a_process(folder: Path, url: str, socket: str) -> tuple[list[float], list[float], float]:
    """Measure in a process that has done nothing else: its memory is that of a monitor."""
    argv = [sys.executable, __file__, "--measure", str(folder), url, f"unix://{socket}"]
    told = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
    return told["passes"], told["bare"], told["memory"]


def measured(folder: str, url: str, docker_host: str) -> None:
    """Print the figures of this process."""
    context = wiring.connect(
        Settings(Path(folder), database_url=url, docker_host=docker_host, jwt_secret="s" * 32), url
    )
    schema.initialize(context)
    organization = services.organization(context, None, make=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(WORKERS, (NODES,))
        connection.execute(ROWS, {"organization": organization.id, "services": SERVICES})
    passes = measure(context)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    engine = SwarmEngine(docker_host, None)
    bare = [fetch(engine) for _ in range(ROUNDS)]
    sys.stdout.write(json.dumps({"passes": passes, "bare": bare, "memory": peak}))
    context.db.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measured(*sys.argv[2:])
    elif len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        main()
