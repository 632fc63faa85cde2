"""A Docker engine that says what a test tells it to, on a unix socket."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

Answer = tuple[int, Any]
VERSION = re.compile(r"^/v[\d.]+(?=/)")  # the agent's requests have none


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = False


@contextmanager
def engine(folder: Path, answer: Callable[[str, str], Answer]) -> Iterator[str]:
    """The address of an engine that gives `answer(method, path without version and query)` as status and JSON, or
    text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = VERSION.sub("", self.path.partition("?")[0])
            status, body = (200, {"ApiVersion": "1.41"}) if path == "/version" else answer(self.command, path)
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    with _Server(str(folder / "docker.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix://{folder}/docker.sock"
        finally:
            server.shutdown()
            thread.join()
