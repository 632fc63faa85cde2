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
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, NamedTuple

import psutil

BEATS = 60
BEAT_SECONDS = 0.2
DEADLINE_SECONDS = 120.0
LIMIT_MB, LIMIT_MS = 40.0, 8.0
NODE_AGENT_MB, NODE_AGENT_MS = 50.7, 33.0
ENGINE_INFO = {"ContainersRunning": 7, "DockerRootDir": "/", "ServerVersion": "28.0.0", "Swarm": {"NodeID": "n0de"}}


class Cost(NamedTuple):
    """Resident memory after the last heartbeat, and CPU time (user and system) of each."""

    megabytes: float
    cpu_ms: float


class Peer(BaseHTTPRequestHandler):
    """Answers with JSON and keeps the connection open, as the manager and the engine do."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def answer(self, status: int, document: dict[str, Any]) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Engine(ThreadingMixIn, UnixStreamServer):
    """A Docker socket that answers `GET /info`."""

    daemon_threads = True

    class RequestHandlerClass(Peer):
        def do_GET(self) -> None:
            self.answer(200, ENGINE_INFO)

    def __init__(self, path: str) -> None:
        super().__init__(path, self.RequestHandlerClass)


class Manager(ThreadingHTTPServer):
    """Accepts every report and counts the heartbeats."""

    daemon_threads = True

    class RequestHandlerClass(Peer):
        server: Manager

        def do_POST(self) -> None:
            if self.path.endswith("/register"):
                self.answer(201, {"success": True, "data": {}})
                return
            self.answer(200, {"success": True, "message": "Heartbeat received", "nextHeartbeatSeconds": BEAT_SECONDS})
            self.server.beats.release()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)
        self.beats = threading.Semaphore(0)

    def await_beats(self, count: int) -> None:
        for _ in range(count):
            if not self.beats.acquire(timeout=DEADLINE_SECONDS):
                sys.exit("error: the agent fell silent\nhint: its log is above")


@contextmanager
def serving(server: Manager | Engine) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def agent(port: int, docker_socket: Path) -> Iterator[psutil.Process]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SKYAGENT_")}
    environ["SKYAGENT_API_URL"] = f"http://127.0.0.1:{port}"
    environ["SKYAGENT_TOKEN"] = "a-token-that-nobody-checks"
    environ["SKYAGENT_WORKER_ID"] = "00000000-0000-4000-8000-000000000001"
    environ["SKYAGENT_DOCKER_SOCKET"] = str(docker_socket)
    process = subprocess.Popen([sys.executable, "-m", "skyagent"], env=environ)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def measure(docker_socket: Path) -> Cost:
    """Leave out the start and the first heartbeat, then count the next 60."""
    manager = Manager()
    with serving(manager), agent(manager.server_port, docker_socket) as process:
        manager.await_beats(1)
        before = process.cpu_times()
        manager.await_beats(BEATS)
        after = process.cpu_times()
        seconds = after.user + after.system - before.user - before.system
        return Cost(process.memory_info().rss / 1e6, seconds / BEATS * 1000)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder, "docker.sock")
        alone = measure(socket)
        with serving(Engine(str(socket))):
            with_engine = measure(socket)
    print(f"{f'over {BEATS} heartbeats':32}{'memory MB':>12}{'CPU ms each':>14}")
    rows = {
        "skyagent, no Docker": alone,
        "skyagent, Docker answering": with_engine,
        "limit": Cost(LIMIT_MB, LIMIT_MS),
        "the panel's Node.js agent (quoted)": Cost(NODE_AGENT_MB, NODE_AGENT_MS),
    }
    for name, cost in rows.items():
        print(f"{name:36}{cost.megabytes:8.1f}{cost.cpu_ms:14.2f}")
    missed = [cost for cost in (alone, with_engine) if cost.megabytes >= LIMIT_MB or cost.cpu_ms >= LIMIT_MS]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
