"""A manager as an agent sees it: it accepts everything and keeps what it was told."""

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.helpers import PATIENCE_SECONDS


@dataclass(frozen=True)
class Told:
    """One request: where to, with which token, and its JSON body."""

    path: str
    token: str
    body: dict[str, Any]

    @property
    def registers(self) -> bool:
        return self.path == "/api/workers/register"


class Peer:
    """An HTTP server on a free port of `address`. Install scripts are told what `invitation` says, and the time so far
    ahead."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None, ahead_seconds: int = 0) -> None:
        self.invitation = "good"
        self._ahead_seconds = ahead_seconds
        self._news = threading.Condition()
        self._told: list[Told] = []
        self._server = ThreadingHTTPServer((address, 0), self._handler())
        if tls:  # not shaken hands while others wait to be accepted
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://{address}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, wanted: Callable[[Told], bool], deadline_seconds: float = PATIENCE_SECONDS) -> Told:
        """The first request of that kind, or the next; AssertionError when none comes in time."""
        deadline = time.monotonic() + deadline_seconds
        seen = 0
        with self._news:
            while True:
                for told in self._told[seen:]:
                    if wanted(told):
                        return told
                seen = len(self._told)
                if not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no such request in {deadline_seconds} s; the last ones: {self._told[-3:]}")

    def forget(self) -> None:
        """Forget what was told until now, so that `wait_for` waits for news."""
        with self._news:
            self._told.clear()

    def _hear(self, told: Told) -> None:
        with self._news:
            self._told.append(told)
            self._news.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        peer, hear = self, self._hear

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                now = int(time.time()) + peer._ahead_seconds
                self.wfile.write(f"time {now}\ninvitation {peer.invitation}\n".encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told = Told(self.path, self.headers["Authorization"].removeprefix("Bearer "), body)
                hear(told)
                self.send_response(201 if told.registers else 200)
                self.end_headers()
                self.wfile.write(b'{"success": true, "message": "Heartbeat received", "data": {}}')

            def log_message(self, *_: object) -> None:
                pass

        return Handler
