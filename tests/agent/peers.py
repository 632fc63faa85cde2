"""Those whom the agent meets, at real sockets: a manager, a Docker engine, a supervisor."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from skyctl.host.release_key import ReleaseKey
from skyctl.rules.releases import statement
from tests.support.helpers import PATIENCE_SECONDS

WORKER_ID = "5d0c1a7e-63f4-4f7e-9a51-0d3f6b7c8e90"
DEADLINE_SECONDS = PATIENCE_SECONDS
ORDERED_AT = "2026-11-25T12:00:00+00:00"

T = TypeVar("T")


def make_token(worker_id: str = WORKER_ID) -> str:
    """A token as the manager makes them, but for a signature that only the manager looks at."""
    payload = json.dumps({"workerId": worker_id, "type": "worker"}).encode()
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"HS256"}', payload, b"sig!")
    )


TOKEN = make_token()


class Journal(Generic[T]):
    """What happened, in order; others can wait for it."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._changed = threading.Condition()

    def add(self, item: T) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def all(self) -> list[T]:
        with self._changed:
            return list(self._items)

    def await_some(self, wanted: Callable[[T], bool], count: int = 1, deadline: float = DEADLINE_SECONDS) -> list[T]:
        """The first `count` items that are wanted, as soon as they are there; fewer at the deadline."""
        with self._changed:
            self._changed.wait_for(lambda: sum(map(wanted, self._items)) >= count, deadline)
            return [item for item in self._items if wanted(item)][:count]


class Request(NamedTuple):
    """What a peer was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    arrived_at: float


class Answer(NamedTuple):
    """What a peer says."""

    status: int
    document: Any
    headers: Mapping[str, str] = {}


HANG = Answer(0, "say nothing until the peer closes")
DROP = Answer(0, "close the connection without a word")
DRIP_HEADERS = Answer(0, "HTTP/1.1 200 OK\r\nX-Endless: ")
DRIP_BODY = Answer(0, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
DRIP_SECONDS = 0.1
NESTED = '{"success":' + "[" * 50_000


class PeerHandler(BaseHTTPRequestHandler):
    """Notes the request, then says what the server's `answer` decides."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    server: Peer

    def handle_any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else None
        request = Request(self.command, self.path, dict(self.headers.items()), body, time.monotonic())
        answer = self.server.decide(request)
        self.server.requests.add(request)
        if answer is HANG:
            self.server.closing.wait()
        if answer in (HANG, DROP):
            self.close_connection = True
            return
        if answer in (DRIP_HEADERS, DRIP_BODY):
            self._drip(answer.document)
        self._say(answer)

    do_GET = do_POST = handle_any  # noqa: N815 (the names are http.server's)

    def _say(self, answer: Answer) -> None:
        said = answer.document
        if not isinstance(said, bytes):
            said = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(said))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)

    def _drip(self, beginning: str) -> NoReturn:
        """Send byte after byte, until the peer has had enough of it or the server closes."""
        self.wfile.write(beginning.encode())
        while not self.server.closing.wait(DRIP_SECONDS):
            self.wfile.write(b" ")
            self.wfile.flush()
        raise ConnectionAbortedError

    def log_message(self, *_: object) -> None:
        pass


class Peer(socketserver.BaseServer):
    """The common half of the servers below."""

    requests: Journal[Request]
    closing: threading.Event
    kept: list[socket.socket]

    def begin(self) -> None:
        self.requests, self.closing, self.kept = Journal(), threading.Event(), []
        self._serving = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._serving.start()

    def decide(self, request: Request) -> Answer:
        raise NotImplementedError

    def verify_request(self, request: Any, client_address: object) -> bool:  # noqa: ARG002 (the signature is socketserver's)
        self.kept.append(request)
        return True

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop, and close the connections that are kept open, as the end of a process does. Once is enough."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.shutdown()
        self._serving.join()
        for connection in self.kept:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """An agent that ends in the middle of a request is part of many tests."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Manager(Peer, ThreadingHTTPServer):
    """Accepts every report, but for the answers that a test has laid ready by the last word of the path."""

    daemon_threads = True

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        ThreadingHTTPServer.__init__(self, (address, port), PeerHandler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://{address}:{self.server_port}"
        self.next_seconds: object = 0.2
        self.offered: dict[str, object] = {}
        self.release_key: ReleaseKey | None = None
        self.agents: dict[str, bytes] = {}
        self.ready: dict[str, deque[Answer]] = {"register": deque(), "heartbeat": deque(), "agent": deque()}
        self.begin()

    def decide(self, request: Request) -> Answer:
        kind = request.path.split("/")[-2] if request.method == "GET" else request.path.rpartition("/")[2]
        if self.ready.get(kind):
            return self.ready[kind].popleft()
        if kind == "register":
            return Answer(201, {"success": True, "data": {"id": WORKER_ID}})
        if kind == "agent":
            return Answer(200, self.agents[request.path.rpartition("/")[2]])
        return self.accepting()

    def accepting(self) -> Answer:
        document = {"success": True, "message": "Heartbeat received", "nextHeartbeatSeconds": self.next_seconds}
        return Answer(200, {**document, **self.offered})

    def offering(
        self, archive: bytes, offered_at: str = ORDERED_AT, sha256: str = "", version: str = "9.9.9"
    ) -> Answer:
        """The acceptance of a heartbeat that offers an agent, signed where there is a key; `sha256` in place of its
        own."""
        name = sha256 or hashlib.sha256(archive).hexdigest()
        self.agents[name] = archive
        said = {"sha256": name, "version": version, "size": len(archive), "offeredAt": offered_at}
        if self.release_key:
            said["signature"] = self.release_key.sign(statement(version, name, len(archive)))
        return Answer(200, {**self.accepting().document, "agent": said})

    def offer(
        self, archive: bytes, offered_at: str = ORDERED_AT, sha256: str = "", version: str = "9.9.9", **changed: Any
    ) -> str:
        """Offer an agent with each heartbeat from now on, with fields that were changed after it was signed; the
        SHA-256 by which it is."""
        said = self.offering(archive, offered_at, sha256, version).document["agent"] | changed
        self.offered = {"agent": said}
        name: str = said["sha256"]
        return name

    def failure(self, order: str = ORDERED_AT) -> dict[str, str]:
        """What the agent tells of the release that it gave up, of those that came by this order."""

        def tells(request: Request) -> bool:
            metadata = (request.body or {}).get("metadata", {})
            return bool(metadata.get("agentUpgradeFailed", {}).get("offeredAt") == order)

        found = self.requests.await_some(tells)
        assert found, "no failed upgrade was told"
        told: dict[str, str] = found[0].body["metadata"]["agentUpgradeFailed"]
        return told

    def fetches(self) -> list[Request]:
        """Every request for an agent's archive so far."""
        return [request for request in self.requests.all() if request.method == "GET"]

    def registrations(self, count: int) -> list[Request]:
        return self._reports("/api/workers/register", count)

    def heartbeats(self, count: int) -> list[Request]:
        return self._reports(f"/api/workers/{WORKER_ID}/heartbeat", count)

    def registration_with(self, **metadata: object) -> Request:
        """The first registration whose metadata holds all of this."""

        def wanted(request: Request) -> bool:
            return request.path.endswith("/register") and metadata.items() <= request.body["metadata"].items()

        found = self.requests.await_some(wanted)
        assert found, f"no registration with {metadata}"
        return found[0]

    def _reports(self, path: str, count: int) -> list[Request]:
        found = self.requests.await_some(lambda request: request.path == path, count)
        assert len(found) == count, f"{len(found)} of {count} requests of {path}"
        return found


def failing(status: int, code: str, message: str = "No", **headers: str) -> Answer:
    """An error as the manager words it; `_` in the name of a header stands for `-`."""
    document = {"success": False, "error": {"code": code, "message": message}}
    return Answer(status, document, {name.replace("_", "-"): value for name, value in headers.items()})


class Engine(Peer, socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A Docker engine at its socket."""

    daemon_threads = True

    def __init__(self, path: Path, **info: object) -> None:
        socketserver.UnixStreamServer.__init__(self, str(path), PeerHandler)
        self.path = path
        self.hanging = False
        self.ready: deque[Answer] = deque()
        self.info: Any = {
            "ContainersRunning": 7,
            "DockerRootDir": "/",
            "ServerVersion": "28.0.1",
            "Swarm": {"NodeID": ""},
        }
        self.info.update(info)
        self.containers = Answer(200, [])
        self.begin()

    def decide(self, request: Request) -> Answer:
        if self.hanging:
            return HANG
        if request.path.startswith("/containers/json?"):
            return self.containers
        if self.ready:
            return self.ready.popleft()
        return Answer(200, self.info) if request.path == "/info" else Answer(404, {"message": "page not found"})

    def end(self) -> None:
        super().end()
        self.path.unlink(missing_ok=True)


class Listener:
    """A supervisor's notification socket: a path, or a name in the abstract namespace with `@` in front."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: Journal[str] = Journal()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.messages.add(message.decode())

    def hears(self, text: str, count: int = 1) -> list[str]:
        """The first `count` messages with this text."""
        found = self.messages.await_some(lambda message: text in message, count)
        assert len(found) == count, f"{text}: {self.messages.all()}"
        return found

    def mark(self) -> None:
        """Return once all is heard that was sent before."""
        self._send(b"MARK=1")
        self.hears("MARK=1")

    def _send(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message, self._socket.getsockname())

    def end(self) -> None:
        self._send(b"")
        self._listening.join()
        self._socket.close()
