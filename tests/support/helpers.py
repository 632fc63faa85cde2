"""What several tests do: wait for a condition, make workers and people, sign tokens."""

import fcntl
import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from skyctl.domain.cluster import Actor, Capacity, Registration
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.monitor import health
from skyctl.operations.shared import clock, leadership
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens

T = TypeVar("T")

TESTS = Actor("tests")
PATIENCE_SECONDS = 300.0  # ends a wait that is hopeless; nothing is measured by it

METRICS_TOKEN = "what-prometheus-shows-to-the-serve-of-a-test"
LOAD = {"cpuPercent": 45.2, "memoryPercent": 62.8, "diskPercent": 38.5, "containerCount": 12}
REGISTRATION = {
    "hostname": "worker-1",
    "ipAddress": "192.168.1.100",
    "capacity": {"cpuCores": 8, "memoryMb": 16384, "diskGb": 500},
    "metadata": {"osVersion": "Ubuntu 22.04", "dockerVersion": "24.0.0", "nixVersion": "2.18.0"},
}


def eventually(look: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """What `look` gives once it is true; fails after a generous time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, "did not come to pass"
        pause.wait(0.05)
    return found


def look(context: Context, term: leadership.Term | None = None) -> health.HealthPass:
    """One pass of a monitor, of its own term unless one is given."""
    held = term or leadership.lead(context, "tests", lambda _: True)
    assert held
    health_pass = health.check(held, clock.Watch())
    if not term:
        held.release()
    return health_pass


def get(url: str | httpx.URL) -> httpx.Response:
    """The answer of one request."""
    return httpx.get(url, timeout=PATIENCE_SECONDS)


def metrics(url: str | httpx.URL) -> str:
    """The metrics of a `serve`, as Prometheus reads them."""
    address = httpx.URL(url).join("/metrics")
    return httpx.get(address, headers=bearer(METRICS_TOKEN), timeout=PATIENCE_SECONDS).text


def ready(url: str) -> bool:
    """Whether the API answers and has its database; the port listens before."""
    try:
        return get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def need(program: str) -> str:
    """Where a program is; where it is missing, the test is skipped, saying so."""
    path = shutil.which(program)
    if not path:
        pytest.skip(f"needs {program}")
    return path


def registration(hostname: str = "worker-1", **metadata: object) -> Registration:
    return Registration(hostname, "192.168.1.100", Capacity(8, 16384, 500), metadata)


def worker_token(secret: str, worker_id: UUID) -> str:
    return tokens.issue_worker_token(secret, worker_id, "tests", datetime.now(UTC))[0]


def add_user(connection: psycopg.Connection, role: str = "admin") -> tuple[UUID, str]:
    user_id, email = uuid4(), f"{role}-{uuid4().hex[:6]}@example.com"
    connection.execute("INSERT INTO users (id, email, role) VALUES (%s, %s, %s)", (user_id, email, role))
    return user_id, email


def admin_token(secret: str, connection: psycopg.Connection, role: str = "admin") -> str:
    user_id, email = add_user(connection, role)
    return tokens.issue_admin_token(secret, user_id, email, datetime.now(UTC))


def add_worker(connection: psycopg.Connection, token: str = "t", **columns: object) -> UUID:
    """A worker as somebody else would have written it."""
    worker_id = uuid4()
    values: dict[str, object] = {
        "id": worker_id,
        "name": f"w-{worker_id.hex[:8]}",
        "hostname": "host",
        "ip_address": "10.0.0.1",
        "auth_token_hash": hashlib.sha256(token.encode()).hexdigest(),
    } | columns
    names = ", ".join(values)
    holders = ", ".join(["%s"] * len(values))
    connection.execute(f"INSERT INTO container_workers ({names}) VALUES ({holders})", tuple(values.values()))
    return worker_id


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def not_started_again(server: EmbeddedPostgres) -> Iterator[None]:
    """Whoever wants to start the server waits until the end of the block."""
    with (server.data_dir / "postgres.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kill_server(server: EmbeddedPostgres) -> None:
    """Kill a PostgreSQL server as a power failure would."""
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
