"""What the agent costs its host: memory, and CPU time of each heartbeat, over 60 heartbeats of the real process.

Compared with the panel's Node.js agent, whose figures were measured once on a machine of this kind.
Exits 1 where a limit is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer, ThreadingMixIn, UnixStreamServer
from typing import Any, NamedTuple

import psutil

BEATS = 60
BEAT_SECONDS = 0.2
DEADLINE_SECONDS = 60.0
LIMIT_MB, LIMIT_MS = 36.0, 5.0
ENGINE_INFO = {"ContainersRunning": 7, "DockerRootDir": "/", "ServerVersion": "28.0.0", "Swarm": {"NodeID": "n0de"}}
ACCEPTED = {"success": True, "message": "Heartbeat received", "nextHeartbeatSeconds": BEAT_SECONDS}


class Cost(NamedTuple):
    """Resident memory after the last heartbeat, and CPU time (user and system) of each."""

    megabytes: float
    cpu_ms: float

    def within_limits(self) -> bool:
        return self.megabytes < LIMIT_MB and self.cpu_ms < LIMIT_MS


NODE_AGENT = Cost(50.7, 33.0)


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


@contextmanager
def agent(port: int, docker_socket: Path) -> Iterator[psutil.Process]:
    """The agent as its unit runs it: launched, with a state folder, and keeping its status."""
    folder = docker_socket.parent
    environ = {
        "STATE_DIRECTORY": str(folder),
        "RUNTIME_DIRECTORY": str(folder),
        "PATH": os.environ["PATH"],
        "SKYAGENT_API_URL": f"http://127.0.0.1:{port}",
        "SKYAGENT_TOKEN": "a-token-that-nobody-checks",
        "SKYAGENT_WORKER_ID": "00000000-0000-4000-8000-000000000001",
        "SKYAGENT_DOCKER_SOCKET": str(docker_socket),
    }
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "skyagent.launch"]
    process = subprocess.Popen(command, cwd=root, env=environ, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def await_beats(count: int) -> None:
    for _ in range(count):
        if not Peer.beats.acquire(timeout=DEADLINE_SECONDS):
            sys.exit("error: the agent fell silent\nhint: see what `python -m skyagent` says")


def measure(docker_socket: Path) -> Cost:
    """Leave out the start and the first heartbeat, then count the next 60."""
    manager = Manager(("127.0.0.1", 0), Peer)
    with serving(manager), agent(manager.server_port, docker_socket) as process:
        await_beats(1)
        before = process.cpu_times()
        await_beats(BEATS)
        after = process.cpu_times()
        seconds = after.user + after.system - before.user - before.system
        return Cost(process.memory_info().rss / 1e6, seconds / BEATS * 1000)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        docker_socket = Path(folder, "docker.sock")
        alone = measure(docker_socket)
        with serving(Engine(str(docker_socket), Peer)):
            with_engine = measure(docker_socket)
    rows = {
        "skyagent, no Docker": alone,
        "skyagent, Docker answering": with_engine,
        "limit": Cost(LIMIT_MB, LIMIT_MS),
        "the panel's Node.js agent (quoted)": NODE_AGENT,
    }
    print(f"{f'over {BEATS} heartbeats':36}{'memory MB':>10}{'CPU ms each':>14}")
    for name, cost in rows.items():
        print(f"{name:36}{cost.megabytes:10.1f}{cost.cpu_ms:14.2f}")
    return 0 if alone.within_limits() and with_engine.within_limits() else 1


if __name__ == "__main__":
    sys.exit(main())
