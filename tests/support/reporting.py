"""Real agents that report to a real `serve`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import Process
from tests.support.helpers import TESTS, eventually


@contextmanager
def agent(context: Context, url: str, file: Path, name: str | None = None, **settings: object) -> Iterator[Process]:
    """The agent of a worker that is invited for it; its settings are in the file."""
    invited = invitations.invite(context, TESTS, name)
    given = {"apiUrl": url, "authToken": invited.token, "workerId": str(invited.worker_id), **settings}
    file.touch(0o600)
    file.write_text(json.dumps(given))
    process = Process([sys.executable, "-m", "skyagent", "--config", str(file)], {})
    try:
        yield process
    finally:
        process.stop()
        assert process.popen.stderr
        process.popen.stderr.close()


def all_beat(connection: psycopg.Connection) -> None:
    """Returns when every worker has been heard from since now."""
    (since,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
    heard = "SELECT bool_and(coalesce(last_heartbeat_at > %s, false)) FROM container_workers"
    eventually(lambda: connection.execute(heard, [since]).fetchone() == (True,))
