"""Fixtures of real parts: a PostgreSQL server for the run, a database for each test, real processes of ours."""

import gc
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from skyctl.domain.engine import SwarmJoin
from skyctl.host.keyring import Keyring
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.host.release_key import ReleaseKey
from skyctl.operations.admin import schema
from skyctl.operations.shared import key_salt
from skyctl.operations.shared.context import Context, Engine
from skyctl.store import sessions, swarm
from skyctl.store.db import Database
from tests.support.event_log import check_events
from tests.support.fakes import FakeEngine, FakeNotifier
from tests.support.fleet import Fleet
from tests.support.helpers import METRICS_TOKEN, PATIENCE_SECONDS
from tests.support.in_process import InProcess

signal.signal(
    signal.SIGHUP, signal.SIG_DFL
)  # whoever starts the tests may ignore it, and what they start would inherit that

# The contexts of whoever runs the tests: nothing here is to be done on their clusters.
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"

# A busy machine is no finding. Where an example writes to the database, the next one starts from what it left.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("tests")

# For the tests' own processes, which on a busy machine may stand still for as long as a frozen one.
sessions.IDLE_SECONDS = 60

SECRET = "a-secret-for-tests-that-is-long-enough-for-hs256"
TEMPLATE = "skyctl_template"
MEMORY, MEMORY_BYTES = "/dev/shm", 4 << 30


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what stays until the end: thousands of tests."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI nothing is skipped: what a test lacks there is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped in CI: {reason}"
    return report


def make_context(
    url: str,
    *,
    engine: Engine | None = None,
    notifier: FakeNotifier | None = None,
    connections: int = 4,
    **policies: Any,
) -> Context:
    db = Database(url, connections=connections)
    return Context(
        db=db,
        engine=lambda: engine or FakeEngine(None),
        notifier=lambda: notifier or FakeNotifier(),
        channels=(notifier.channel,) if notifier else (),
        keys=Keyring(None, key_salt.reader(db), [SECRET]),
        api_url="https://manager.example.com",
        authority=lambda _: "",
        **policies,
    )


def in_memory() -> str | None:
    """A folder whose files are kept in memory, if there is room enough and programs may lie there: to make a database
    takes a twentieth of the time that it takes on a slow disk."""
    if not Path(MEMORY).is_dir():
        return None
    found = os.statvfs(MEMORY)
    is_fit = found.f_bavail * found.f_frsize > MEMORY_BYTES and not found.f_flag & os.ST_NOEXEC
    return MEMORY if is_fit else None


@pytest.fixture(scope="session")
def folder_of_run() -> Iterator[Path]:
    """A folder that every user may enter, as PostgreSQL needs it when root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="skyctl-tests-", dir=in_memory()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_folder(folder_of_run: Path) -> Iterator[Path]:
    """Such a folder for a test alone: a database in it takes 80 MB, which may be memory."""
    folder = folder_of_run / uuid4().hex[:6]
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(folder_of_run: Path) -> Iterator[EmbeddedPostgres]:
    """The server of this run, with a template that has our schema."""
    server = EmbeddedPostgres(folder_of_run / "server")
    with server.running() as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # each end of a test's database is a checkpoint
        connection.execute("ALTER SYSTEM SET max_wal_size = '128MB'")  # it may be kept in memory
        connection.execute("ALTER SYSTEM SET min_wal_size = '80MB'")
    with server.running() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        context = make_context(database_of(url, TEMPLATE))
        schema.initialize(context)
        with context.db.transaction() as tx:
            swarm.note_join(tx, None)  # a monitor has looked, and found no swarm
        context.db.close()
        yield server


def database_of(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def make_database(postgres: EmbeddedPostgres) -> Iterator[Callable[..., str]]:
    """Make a database of its own from a template, with more options of CREATE DATABASE on request; gives its URL."""
    made = []

    def make(template: str, options: LiteralString = "") -> str:
        name = f"test_{uuid4().hex[:12]}"
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            made_from = (sql.Identifier(name), sql.Identifier(template), sql.SQL(options))
            # page by page, it would write all of them to the log: six times the work
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy {}").format(*made_from))
        made.append(name)
        return database_of(postgres.url, name)

    yield make
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> Iterator[str]:
    """A database with our schema; what the test has left in its log of events is of the table of kinds."""
    url = make_database(TEMPLATE)
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        check_events(connection)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to the test's database, to look at it and to write what others would."""
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def release_key(tmp_path: Path) -> ReleaseKey:
    """The key of releases that commands of the test have, made."""
    key = ReleaseKey(tmp_path / "data/release.key")
    key.make()
    return key


@pytest.fixture
def context(database_url: str, tmp_path: Path) -> Iterator[Context]:
    made = make_context(database_url, release_key=ReleaseKey(tmp_path / "data/release.key"))
    yield made
    made.db.close()


@pytest.fixture
def trio(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Three empty workers under a fake engine: w1, w2, w3."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine)
    fleet = Fleet(context, connection, engine)
    fleet.add("w1", "w2", "w3")
    yield fleet
    context.db.close()


@dataclass
class Cli:
    """Runs skyctl as a person would, against one database."""

    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "skyctl", *args],
            env=clean_environment() | self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )


def clean_environment() -> dict[str, str]:
    """What our processes get of the environment of the tests: none of our settings, no screen's size, and leave to keep
    what they compiled."""
    ours = ("SKYCTL_", "SKYAGENT_", "WORKER_", "DATABASE_URL", "JWT_SECRET", "DOCKER_", "NO_COLOR")
    others = ("PYTHONDONTWRITE", "COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if not name.startswith((*ours, *others))}


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "SKYCTL_DATABASE_URL": database_url,
        "SKYCTL_JWT_SECRET": SECRET,
        "SKYCTL_METRICS_TOKEN": METRICS_TOKEN,
        "SKYCTL_DATA_DIR": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


LASTING = {"monitor", "serve", "up", "doctor", "follow", "--follow", "--debug"}


class Typed(Cli):
    """The same within the tests' own process, but for what lasts and what another thread asks: a process takes most of
    a second before it begins."""

    def __call__(self, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        is_alone = threading.current_thread() is threading.main_thread()
        if not is_alone or LASTING.intersection(args):
            return super().__call__(*args, **environment)
        return InProcess(self.environment)(*args, **environment)


def without_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def cli(request: pytest.FixtureRequest, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line: processes, unless the file is marked `in_process`."""
    if not request.node.get_closest_marker("in_process"):
        return Cli(environment)
    without_our_settings(monkeypatch)
    return Typed(environment)


@pytest.fixture
def typed(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """skyctl in this process: for what a command says, where how it is loaded and ended does not matter."""
    without_our_settings(monkeypatch)
    return InProcess(environment)


class Process:
    """A process of ours, its stderr read line by line."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            command, env=clean_environment() | environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0
        )
        self.seen: list[str] = []
        self._rest = b""

    def until(self, text: str, seconds: float = PATIENCE_SECONDS) -> str:
        """The next line of its stderr that holds the text; fails when the process ends before, or does not say it in
        time."""
        for line in self._lines(f"no {text!r}", seconds):
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r}: {''.join(self.seen)}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and give its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        for _ in self._lines(f"no end after {number.name}", PATIENCE_SECONDS):
            pass
        return self.popen.wait(PATIENCE_SECONDS)

    def _lines(self, lack: str, seconds: float) -> Iterator[str]:
        """The lines that come until its stderr is closed; fails, saying what lacks, where that takes longer."""
        assert self.popen.stderr
        number, deadline = self.popen.stderr.fileno(), time.monotonic() + seconds
        poll = select.poll()
        poll.register(number)
        more = b"\n"
        while more:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                self.seen.append(line.decode(errors="replace") + "\n")
                yield self.seen[-1]
            in_time = poll.poll(max(0, 1000 * (deadline - time.monotonic())))
            assert in_time, f"{lack} within {seconds:g} s: {''.join(self.seen)}"
            more = os.read(number, 65_536)
            self._rest += more


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., Process]]:
    """Start skyctl as a process that is killed at the end of the test if it is still there."""
    started = []

    def begin(*args: str, **more: str) -> Process:
        process = Process([sys.executable, "-m", "skyctl", *args], environment | more)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait()
        if process.popen.stderr:
            process.popen.stderr.close()


@pytest.fixture
def serve(start: Callable[..., Process]) -> Callable[..., tuple[str, Process]]:
    """Start the API; gives its URL and its process."""

    def begin(*args: str, **more: str) -> tuple[str, Process]:
        process = start("serve", "--port", "0", *args, **more)
        return process.until("listening on ").split("listening on ")[1].strip(), process

    return begin


@pytest.fixture
def follow(environment: dict[str, str]) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start skyctl as a process whose results are read from its stdout."""
    with ExitStack() as stack:

        def begin(*args: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-m", "skyctl", *args],
                env=clean_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin
