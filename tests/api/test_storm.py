"""A fleet that comes back at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx
import psycopg

from tests.conftest import SECRET, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, REGISTRATION, add_worker, bearer, worker_token

Serve = Callable[..., tuple[str, Process]]
HOSTS = 60


def known_host(connection: psycopg.Connection, number: int) -> tuple[UUID, str]:
    """A worker that registered long ago as the host that it still is, and its token."""
    said = {"hostname": f"host-{number}", "ip_address": f"10.0.0.{number + 1}"}
    worker_id = add_worker(connection, **said, machine_id=f"machine-{number}", boot_id="boot-1", bound_at="2026-01-01")
    token = worker_token(SECRET, worker_id)
    connection.execute(
        "UPDATE container_workers SET auth_token_hash = encode(sha256(%s), 'hex') WHERE id = %s",
        [token.encode(), worker_id],
    )
    return worker_id, token


def test_hosts_that_were_rebooted_register_and_beat_whoever_holds_the_log(
    serve: Serve, connection: psycopg.Connection, database_url: str
) -> None:
    """A fleet of whom nothing is to be told takes no lock that all share."""
    hosts = [known_host(connection, number) for number in range(HOSTS)]
    with (
        httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as client,
        psycopg.connect(database_url) as holder,
        ThreadPoolExecutor(HOSTS) as threads,
    ):
        holder.execute("SELECT skyctl_lock_events()")

        def come_back(number: int) -> tuple[int, int]:
            worker_id, token = hosts[number]
            identity = {"machineId": f"machine-{number}", "bootId": "boot-2", "instanceId": "process-2"}
            host = {"hostname": f"host-{number}", "ipAddress": f"10.0.0.{number + 1}", "metadata": identity}
            registered = client.post("/api/workers/register", headers=bearer(token), json=REGISTRATION | host)
            beat = client.post(f"/api/workers/{worker_id}/heartbeat", headers=bearer(token), json=LOAD)
            return registered.status_code, beat.status_code

        assert list(threads.map(come_back, range(HOSTS))) == [(201, 200)] * HOSTS
    query = "SELECT count(*) FROM container_workers WHERE boot_id = 'boot-2' AND bound_at > now() - interval '1 day'"
    assert connection.execute(query).fetchone() == (HOSTS,)
