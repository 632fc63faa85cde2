"""Alerts by a channel: how many arrive a second, beside a process for each alert, in one run.

A thousand alerts of as many workers wait for a webhook of this machine that takes each at once; a real monitor delivers
them.

a process for the channel    against a process for each alert: at least 10 x
all of them                  within 30 s
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
from _limits import Limit, hold
from heartbeats import SECRET
from rich.console import Console
from rich.table import Table

from skyctl.domain.cluster import Alert
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.notifiers.apprise import Channels, names

STORM, SINGLE = 1000, 10
RATIO, LIMIT_SECONDS = 10.0, 30.0
QUEUE = """
    WITH storm AS (
        INSERT INTO worker_alerts (kind, worker_id, title, message)
        SELECT 'worker_offline', gen_random_uuid(), 'worker ' || number, 'offline' FROM generate_series(1, %s) AS number
        RETURNING id
    )
    INSERT INTO alert_deliveries (alert_id, channel) SELECT id, %s FROM storm
"""


class Counting(ThreadingHTTPServer):
    """A webhook that counts; `complete` once the whole storm has arrived."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.arrived, self.first_at = 0, 0.0
        self.complete = threading.Event()
        self.url = f"json://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Counting

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.arrived += 1
        if self.server.arrived == STORM:
            self.server.complete.set()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def counting() -> Iterator[Counting]:
    with Counting() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def a_process_each() -> float:
    """Send some alerts, each by a process of its own; return the seconds for one."""
    alert = Alert("worker_offline", None, "worker 1", "offline")
    with counting() as server:
        channels, [name] = Channels([server.url]), names([server.url])
        started = time.perf_counter()
        for _ in range(SINGLE):
            with channels.opened(name) as send:
                send(alert)
        return (time.perf_counter() - started) / SINGLE


def a_storm(url: str) -> float:
    """Deliver the storm by a real monitor; return the seconds for all of it, with the monitor's start."""
    skyctl = str(Path(sys.executable).parent / "skyctl")
    with counting() as server, tempfile.TemporaryDirectory() as data:
        given = {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET, "SKYCTL_ALERT_CHANNELS": server.url}
        given |= {"SKYCTL_DATA_DIR": data, "PATH": "/usr/bin:/bin"}
        subprocess.run([skyctl, "--quiet", "db", "init"], env=given, check=True, capture_output=True)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(QUEUE, (STORM, names([server.url])[0]))
        started = time.perf_counter()
        monitor = subprocess.Popen([skyctl, "monitor"], env=given, stderr=subprocess.DEVNULL)
        try:
            server.complete.wait(20 * LIMIT_SECONDS)
            return time.perf_counter() - started
        finally:
            monitor.terminate()
            monitor.wait()


def main() -> None:
    each = a_process_each()
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "data").running() as url:
            storm = a_storm(url)
    ratio = each * STORM / storm
    table = Table(title=f"{STORM} alerts that wait")
    for heading in ("by", "alerts a second", f"seconds for {STORM}", "ratio"):
        table.add_column(heading, justify="left" if heading == "by" else "right")
    table.add_row("a process for each alert", f"{1 / each:.2f}", f"{each * STORM:.0f}", "1.0")
    table.add_row("a process for the channel", f"{STORM / storm:.2f}", f"{storm:.1f}", f"{ratio:.1f}")
    Console().print(table)
    hold(
        Limit("a process for the channel, against one each", ratio, RATIO, "x", least=True),
        Limit(f"{STORM} alerts delivered", storm, LIMIT_SECONDS, "s"),
    )


if __name__ == "__main__":
    main()
