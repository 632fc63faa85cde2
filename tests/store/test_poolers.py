"""Behind pgbouncer, Debian's: by sessions everything works; what gives each transaction another session is refused by
name, and is left as it was."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from skyctl.host.postgres import EmbeddedPostgres
from skyctl.host.postgres_binaries import SYSTEM_USER
from skyctl.operations.agents import invitations
from tests.conftest import Cli, Process, make_context
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, add_worker, bearer, eventually, need
from tests.support.postgres_servers import free_port

Start = Callable[..., Process]
Serve = Callable[..., tuple[str, Process]]
Pooler = Callable[[str], str]

SETTINGS = """
[databases]
* = host={sockets} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


@pytest.fixture
def pooler(postgres: EmbeddedPostgres, database_url: str, tmp_path: Path) -> Iterator[Pooler]:
    """Start pgbouncer in a mode; gives the URL of the test's database by it."""
    program = need("pgbouncer")
    started = []

    def begin(mode: str) -> str:
        port = free_port()
        file = tmp_path / "pgbouncer.ini"
        lines = SETTINGS.format(sockets=postgres.sockets, port=port, mode=mode)
        file.write_text(lines + (f"user = {SYSTEM_USER}\n" if os.geteuid() == 0 else ""))
        process = subprocess.Popen([program, "--quiet", str(file)], stderr=subprocess.DEVNULL)
        started.append(process)
        name = database_url.partition("?")[0].rpartition("/")[2]
        url = f"postgresql://anybody@127.0.0.1:{port}/{name}"
        eventually(lambda: accepts(url))
        return url

    yield begin
    for process in started:
        process.terminate()
        process.wait()


def accepts(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_by_sessions_everything_works(start: Start, serve: Serve, cli: Cli, pooler: Pooler) -> None:
    by_pooler = pooler("session")
    url, _ = serve(SKYCTL_DATABASE_URL=by_pooler)
    monitor = start("monitor", "--interval", "3600", SKYCTL_DATABASE_URL=by_pooler)
    monitor.until("action=leads")
    context = make_context(by_pooler)
    invitation = invitations.invite(context, TESTS, "w1")
    context.db.close()
    path = f"{url}/api/workers/{invitation.worker_id}/heartbeat"
    for _ in range(20):
        assert httpx.post(path, json=LOAD, headers=bearer(invitation.token), timeout=PATIENCE_SECONDS).is_success
    # by NOTIFY: the next pass would come in an hour
    monitor.until("name='w1'")
    assert "w1" in cli("workers", "list", SKYCTL_DATABASE_URL=by_pooler).stdout


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_whatever_hands_sessions_on_is_refused_by_name(start: Start, cli: Cli, pooler: Pooler, mode: str) -> None:
    by_pooler = {"SKYCTL_DATABASE_URL": pooler(mode)}
    refused = cli("workers", "list", **by_pooler)
    error, hint = refused.stderr.splitlines()
    assert (refused.returncode, "is a pooler that gives each transaction another session" in error) == (5, True)
    assert "pool_mode = session" in hint
    for command in (["serve", "--port", "0"], ["monitor"]):
        process = start(*command, **by_pooler)
        process.until("is a pooler that gives each transaction another session")
        assert process.popen.wait(PATIENCE_SECONDS) == 5
    found = cli("doctor", **by_pooler)
    assert (found.returncode, "is a pooler that gives" in found.stdout) == (1, True)


def test_what_hands_sessions_on_is_left_as_it_was(cli: Cli, pooler: Pooler) -> None:
    """Its sessions are others' as well: none has our limits of time, or listens for us."""
    by_pooler = pooler("transaction")
    assert cli("workers", "list", SKYCTL_DATABASE_URL=by_pooler).returncode == 5
    with psycopg.connect(by_pooler) as others:
        listens = "SELECT current_setting('statement_timeout'), count(channel) FROM pg_listening_channels() AS channel"
        assert others.execute(listens).fetchall() == [("0", 0)]


def test_a_pooler_without_a_second_session_is_named(cli: Cli, pooler: Pooler) -> None:
    refused = cli("workers", "list", SKYCTL_DATABASE_URL=pooler("session\ndefault_pool_size = 1"))
    error, hint = refused.stderr.splitlines()
    assert (refused.returncode, "is a pooler that gives no second session" in error) == (5, True)
    assert "pool_size" in hint


def test_options_that_a_pooler_does_not_take_are_named(cli: Cli, pooler: Pooler) -> None:
    refused = cli("workers", "list", SKYCTL_DATABASE_URL=f"{pooler('session')}?options=-csearch_path%3Dx")
    error, hint = refused.stderr.splitlines()
    assert (refused.returncode, "unsupported startup parameter: options" in error) == (5, True)
    assert "take them out of SKYCTL_DATABASE_URL" in hint


def test_a_limit_of_idle_sessions_costs_no_lead(start: Start, connection: psycopg.Connection) -> None:
    name = connection.info.dbname
    connection.execute(f'ALTER DATABASE "{name}" SET idle_session_timeout = 500')
    monitor = start("monitor", "--interval", "3600")
    monitor.until("action=leads term=1")
    with psycopg.connect(connection.info.dsn, dbname=name) as theirs:
        begun = theirs.execute("SELECT expires_at FROM monitor_leases").fetchone()
    assert begun
    renewed = "SELECT expires_at > %s + interval '6 s' FROM monitor_leases"
    eventually(lambda: connection.execute(renewed, begun).fetchone() == (True,))
    add_worker(connection, name="w", last_heartbeat_at="now")
    connection.execute("NOTIFY skyctl_news")
    assert "to=active term=1" in monitor.until("name='w'")
