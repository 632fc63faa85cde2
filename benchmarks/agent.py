"""What the agent costs its host, beside Prometheus's node_exporter: resident memory, and CPU time of each report.

Both run at once and are counted alike over the same reports: a heartbeat of the agent, a scrape of node_exporter.
Memory is the resident set (RSS): a proportional share (PSS) would have this program, which runs on the same
interpreter, pay for half of the agent's. CPU is that of the whole process, of threads that have ended as well
(/proc/PID/stat). Exits 1 where a limit is missed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from socketserver import BaseServer, ThreadingMixIn, UnixStreamServer
from typing import Any, NamedTuple

import psutil
from _limits import Limit, hold

from skyctl.host.x509 import make_authority, make_server
from skyctl.installer import requirements

REPORTS = 100
BEAT_SECONDS = 0.2
DEADLINE_SECONDS = 60.0
MEMORY_RATIO, CPU_RATIO = 1.3, 0.5
# The system's own, as on hosts, where it is no older than the agent needs.
PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable
NODE_EXPORTER = "prometheus-node-exporter"
SOCKET = "docker.sock"
# As the runner of the install script starts it (skyctl/installer/parts/files.sh).
START = "import runpy, sys; del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
ENGINE_INFO = {"ContainersRunning": 7, "DockerRootDir": "/", "ServerVersion": "28.0.0", "Swarm": {"NodeID": "n0de"}}
ACCEPTED = {"success": True, "message": "Heartbeat received", "nextHeartbeatSeconds": BEAT_SECONDS}


class Cost(NamedTuple):
    """Resident memory after the last report, and CPU time (user and system) of each."""

    megabytes: float
    cpu_ms: float

    def times(self, memory: float, cpu: float) -> Cost:
        return Cost(self.megabytes * memory, self.cpu_ms * cpu)


# Where there is nothing to compare with.
LIMIT = Cost(30.0, 5.0)


class Peer(BaseHTTPRequestHandler):
    """Accepts every report, describes an engine, and keeps the connection open, as manager and engine do."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    beats = threading.Semaphore(0)

    def do_GET(self) -> None:
        self.answer(ENGINE_INFO)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(ACCEPTED)
        if self.path.endswith("/heartbeat"):
            self.beats.release()

    def answer(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingMixIn, BaseServer):
    """A peer that does not mind an agent that ends."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


class Manager(Server, ThreadingHTTPServer):
    """The manager."""


class Engine(Server, UnixStreamServer):
    """The Docker engine at its socket."""


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def install(folder: Path) -> Path:
    """An environment as the install script makes it: with the agent and its libraries, none of this one's others; its
    interpreter."""
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    packages.joinpath("skyagent").symlink_to(Path(__file__).parents[1] / "skyagent")
    for name in set(re.findall(r"^([\w-]+)==", requirements(), re.MULTILINE)):
        try:
            library = distribution(name)
        except PackageNotFoundError:  # one that an older Python needs
            continue
        for top in {path.parts[0] for path in library.files or ()} - {"..", "__pycache__"}:
            packages.joinpath(top).symlink_to(Path(str(library.locate_file(top))))
    return folder / "bin/python"


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, env=environ, cwd="/", stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def agent(python: Path, folder: Path, trust: Path | None = None) -> Iterator[psutil.Process]:
    """The agent as its unit runs it: launched, with a state folder, and keeping its status; with a manager, over TLS
    where a file of certificates is named that vouch for it."""
    manager = Manager(("127.0.0.1", 0), Peer)
    if trust:
        manager.socket = certified(trust).wrap_socket(manager.socket, server_side=True)
    environ = {
        "STATE_DIRECTORY": str(folder),
        "RUNTIME_DIRECTORY": str(folder),
        "PATH": os.environ["PATH"],
        "SKYAGENT_API_URL": f"{'https' if trust else 'http'}://127.0.0.1:{manager.server_port}",
        "SKYAGENT_TOKEN": "a-token-that-nobody-checks",
        "SKYAGENT_WORKER_ID": "00000000-0000-4000-8000-000000000001",
        "SKYAGENT_CA_FILE": str(trust or ""),
        "SKYAGENT_DOCKER_SOCKET": str(folder / SOCKET),
    }
    with serving(manager), running([str(python), "-I", "-c", START, "skyagent.launch"], environ) as process:
        yield process


def certified(trust: Path) -> ssl.SSLContext:
    """Make an authority, whose certificate goes into the file; the server's side of what it vouches for."""
    now = datetime.now(UTC)
    authority, key = (pem.encode() for pem in make_authority("benchmark", now))
    trust.write_bytes(authority)
    chain = trust.with_name("server.pem")
    chain.write_text("".join(make_server(["127.0.0.1"], now, now + timedelta(days=1), authority, key)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


class NodeExporter(NamedTuple):
    """Its process, and a connection to it that a Prometheus would keep."""

    process: psutil.Process
    connection: HTTPConnection


@contextmanager
def node_exporter() -> Iterator[NodeExporter | None]:
    """It as its unit runs it; None where it is not installed."""
    program = shutil.which(NODE_EXPORTER)
    if not program:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    with running([program, f"--web.listen-address=127.0.0.1:{port}"], os.environ) as process:
        while not answers(connection):
            if process.status() == psutil.STATUS_ZOMBIE:
                sys.exit(f"error: {program} ends at once\nhint: see what it says")
        yield NodeExporter(process, connection)


def answers(connection: HTTPConnection) -> bool:
    try:
        connection.connect()
    except ConnectionRefusedError:
        return False
    return True


def scrape(connection: HTTPConnection) -> None:
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    connection.getresponse().read()


def await_beat() -> None:
    if not Peer.beats.acquire(timeout=DEADLINE_SECONDS):
        sys.exit("error: the agent fell silent\nhint: see what `python -m skyagent` says")


def measure(processes: Sequence[psutil.Process], connection: HTTPConnection | None) -> list[Cost]:
    """Leave out the start and the first report, then count the next ones."""

    def report() -> None:
        await_beat()
        if connection:
            scrape(connection)

    report()
    before = [seconds(process) for process in processes]
    for _ in range(REPORTS):
        report()
    spent = [seconds(process) - earlier for process, earlier in zip(processes, before, strict=True)]
    resident = [process.memory_info().rss / 1e6 for process in processes]
    return [Cost(memory, 1000 * cpu / REPORTS) for memory, cpu in zip(resident, spent, strict=True)]


def seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    rows: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = install(folder / "venv")
        with agent(python, folder) as process:
            (rows["skyagent, no Docker"],) = measure([process], None)
        with serving(Engine(str(folder / SOCKET), Peer)):
            with agent(python, folder) as process:
                (rows["skyagent, Docker answering"],) = measure([process], None)
            with agent(python, folder, folder / "ca.pem") as process, node_exporter() as other:
                both = [process, other.process] if other else [process]
                costs = measure(both, other and other.connection)
                rows |= dict(zip(("skyagent, the same over TLS", "node_exporter"), costs, strict=False))
    show(rows)


def show(rows: dict[str, Cost]) -> None:
    """Print the table."""
    compared = rows.get("node_exporter")
    limit = compared.times(MEMORY_RATIO, CPU_RATIO) if compared else LIMIT
    shown = rows | {"limit": limit}
    print(f"{f'over {REPORTS} reports':32}{'memory MB':>10}{'CPU ms':>8}{'x node_exporter':>20}")
    for name, cost in shown.items():
        ratios = f"{cost.megabytes / compared.megabytes:12.2f}{cost.cpu_ms / compared.cpu_ms:8.2f}" if compared else ""
        print(f"{name:32}{cost.megabytes:10.1f}{cost.cpu_ms:8.2f}{ratios}")
    if not compared:
        print(f"{NODE_EXPORTER} is missing, and nothing is compared with it: apt-get install {NODE_EXPORTER}")
    ours = {name: cost for name, cost in rows.items() if cost is not compared}
    hold(
        *(Limit(f"{name}: memory", cost.megabytes, limit.megabytes, "MB") for name, cost in ours.items()),
        *(Limit(f"{name}: CPU of a report", cost.cpu_ms, limit.cpu_ms, "ms") for name, cost in ours.items()),
    )


if __name__ == "__main__":
    main()
