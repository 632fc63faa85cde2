"""A webhook on loopback: it keeps what it is sent, fails when told to, and can hold its answers back or let them
drip."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.helpers import PATIENCE_SECONDS


class Webhook:
    """What arrived, and how it answers."""

    def __init__(self, port: int) -> None:
        self.url = f"json://127.0.0.1:{port}/hook-with-a-secret"
        self.arrived: list[tuple[str, str]] = []
        self.fails: list[bool] = []
        self.leads_elsewhere: tuple[int, str] | None = None
        self.got: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        self.drips = False
        self.open = self.most_open = 0
        self._counting = threading.Lock()

    def drip(self) -> None:
        """Answer a byte at a time from now on, so that no read ever takes long, until the block ends."""
        self.drips = True
        self.answers.clear()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count an answer that drips as open, for the length of the block."""
        with self._counting:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            yield
        finally:
            with self._counting:
                self.open -= 1


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A webhook for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.asked.set()
            if hook.drips:
                self.drip()
                return
            if hook.leads_elsewhere and self.path != "/elsewhere":
                status, address = hook.leads_elsewhere
                self.send_response(status)
                self.send_header("Location", address)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            hook.answers.wait(PATIENCE_SECONDS)
            if not hook.fails:
                hook.arrived.append((body["title"], body["message"]))
            self.send_response(500 if hook.fails else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            hook.got.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with hook.counted(), suppress(ConnectionError):
                while not hook.answers.wait(0.2):
                    self.wfile.write(b" ")
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook = Webhook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        hook.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()
