"""What `serve` logs of what fails over and over: a line for each change of it."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psycopg

from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, REGISTRATION, TESTS, bearer

Serve = Callable[..., tuple[str, Process]]
AWAY, BACK = "ALTER TABLE {} RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO {}"


@contextmanager
def going_on(ask: Callable[[], httpx.Response]) -> Iterator[None]:
    """Ask again and again, for the length of the block."""
    over = threading.Event()

    def go() -> None:
        while not over.wait(0.05):
            ask()

    thread = threading.Thread(target=go)
    thread.start()
    yield
    over.set()
    thread.join()


def test_heartbeats_and_registrations_that_are_refused_are_a_line_each_for_each_reason(
    serve: Serve, context: Context, connection: psycopg.Connection
) -> None:
    url, process = serve()
    invitation = invitations.invite(context, TESTS)
    headers = bearer(invitation.token)

    def beat() -> httpx.Response:
        path = f"{url}/api/workers/{invitation.worker_id}/heartbeat"
        return httpx.post(path, headers=headers, json=LOAD, timeout=PATIENCE_SECONDS)

    def register() -> httpx.Response:
        path = f"{url}/api/workers/register"
        return httpx.post(path, headers=headers, json=REGISTRATION, timeout=PATIENCE_SECONDS)

    assert (register().status_code, beat().status_code) == (201, 200)
    connection.execute(AWAY.format("container_workers"))
    refused = [beat().status_code for _ in range(20)]
    not_registered = [register().status_code for _ in range(5)]
    connection.execute(BACK.format("container_workers"))
    connection.execute("ALTER TABLE container_workers RENAME COLUMN current_load TO elsewhere")
    refused += [beat().status_code for _ in range(20)]
    connection.execute("ALTER TABLE container_workers RENAME COLUMN elsewhere TO current_load")
    assert (set(refused), set(not_registered)) == ({503}, {503})
    with going_on(beat):
        well = process.until("action=heartbeats_accepted")
    assert f"failures={len(refused)} " in well
    with going_on(register):
        well = process.until("action=requests_answered path=/api/workers/register")
    assert f"failures={len(not_registered)} " in well
    reasons = [re.findall("reason=(.*)", line)[0] for line in process.seen if "action=heartbeats_refused" in line]
    assert len(reasons) == len(set(reasons)) == 2
    assert len([line for line in process.seen if "action=request_failed path=/api/workers/register" in line]) == 1
