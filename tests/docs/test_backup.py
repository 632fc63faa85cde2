"""Backup and restore by the commands that docs/operations.md gives, while workers report."""

import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from skyctl.host import postgres_binaries
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, Process, clean_environment, database_of
from tests.support.helpers import eventually
from tests.support.reporting import agent, all_beat

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
SETTINGS = {
    "WORKER_HEARTBEAT_INTERVAL": "0.3",
    "WORKER_HEARTBEAT_TIMEOUT": "60",
    "WORKER_CPU_LIMIT": "100",
    "WORKER_MEMORY_LIMIT": "100",
    "WORKER_DISK_LIMIT": "100",
}
# Makes a backup look a day old.
AGE = """
UPDATE container_workers SET last_heartbeat_at = last_heartbeat_at - interval '1 day';
UPDATE serve_instances SET started_at = started_at - interval '1 day', last_seen_at = last_seen_at - interval '1 day';
UPDATE monitor_leases SET expires_at = expires_at - interval '1 day', last_pass_at = NULL;
"""
NAMES = ("w1", "w2", "w3")


@pytest.fixture
def restored(postgres: EmbeddedPostgres, connection: psycopg.Connection) -> Iterator[str]:
    """The name of the database into which the test restores, and which it creates."""
    name = f"{connection.info.dbname}_restored"
    yield name
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def documented(chapter: str, **names: str) -> None:
    """Run the commands of a chapter that are for the database's own user; `names` replaces words of theirs."""
    text = OPERATIONS.read_text().partition(f"## {chapter}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^    sudo -u postgres (.+)$", text, re.MULTILINE)
    assert lines, chapter
    for line in lines:
        program, *words = (names.get(word, word) for word in shlex.split(line))
        environment = clean_environment() | {"PGUSER": "postgres", "PGHOST": names["host"]}
        completed = subprocess.run(
            [postgres_binaries.installed() / program, *words], env=environment, capture_output=True, text=True
        )
        assert (completed.returncode, completed.stderr) == (0, ""), line


def test_workers_go_on_where_the_backup_was_made(
    serve: Callable[..., tuple[str, Process]],
    start: Callable[..., Process],
    cli: Cli,
    context: Context,
    connection: psycopg.Connection,
    postgres: EmbeddedPostgres,
    restored: str,
    tmp_path: Path,
) -> None:
    name, dump = connection.info.dbname, tmp_path / "skyctl.dump"
    names = {"host": str(postgres.sockets), "skyctl": name, "/var/backups/skyctl.dump": str(dump)}
    url, serving = serve(**SETTINGS)
    watching = start("monitor", "--interval", "0.5", **SETTINGS)
    with ExitStack() as stack:
        agents = [stack.enter_context(agent(context, url, tmp_path / f"{name}.json", name)) for name in NAMES]
        eventually(lambda: statuses(connection) == dict.fromkeys(NAMES, "active"))
        all_beat(connection)
        documented("Backup", **names)
        saved = last_event(connection)
        assert cli("workers", "drain", "w1").returncode == 0, "what happens after the backup is lost"
        for process in (serving, watching):
            process.stop(signal.SIGKILL)
        for reporter in agents:
            reporter.until("action=manager_unreachable")
        documented(
            "Restore",
            **names,
            skyctl_restored=restored,
            **{"--owner=skyctl": "--owner=postgres", "--role=skyctl": "--role=postgres"},
        )
        other = {"SKYCTL_DATABASE_URL": database_of(postgres.url, restored), **SETTINGS}
        assert cli("db", "check", **other).returncode == 0
        with psycopg.connect(other["SKYCTL_DATABASE_URL"], autocommit=True) as new:
            new.execute(AGE)
            start("monitor", "--interval", "0.5", **other)  # before any agent can report again
            eventually(lambda: new.execute("SELECT last_pass_at IS NOT NULL FROM monitor_leases").fetchone() == (True,))
            serve("--port", url.rpartition(":")[2], **other)
            all_beat(new)
            assert statuses(new) == dict.fromkeys(NAMES, "active")
            assert last_event(new) == saved, "no worker was concluded offline meanwhile"
            assert cli("workers", "drain", "w2", **other).returncode == 0
            assert last_event(new) > saved


def statuses(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, status FROM container_workers").fetchall())


def last_event(connection: psycopg.Connection) -> int:
    (seq,) = connection.execute("SELECT max(seq) FROM worker_events").fetchone() or (0,)
    return int(seq)
