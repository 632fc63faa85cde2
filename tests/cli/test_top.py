"""skyctl cluster top: on a real terminal that shrinks, goes away or loses its database; without one; and the pictures
alone."""

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from skyctl.cli.views import top as top_views
from skyctl.documents.cli import overview_document
from skyctl.documents.http import Document, load_document
from skyctl.domain.cluster import Load
from skyctl.domain.drains import DrainOptions
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import drains, schema
from skyctl.operations.admin import overview as overview_admin
from skyctl.operations.agents import invitations
from skyctl.operations.shared import leadership, lookup
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, clean_environment, make_context
from tests.monitor.test_frozen import frozen
from tests.support.helpers import PATIENCE_SECONDS, TESTS, add_worker, kill_server, look, not_started_again

pytestmark = pytest.mark.in_process

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])m")


class Terminal:
    """skyctl on a terminal of its own."""

    def __init__(self, environment: dict[str, str], *arguments: str, columns: int = 80, lines: int = 24) -> None:
        self._master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.resize(columns, lines)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "skyctl", *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - takes no lock
            start_new_session=True,
            env=clean_environment() | {"TERM": "xterm"} | environment,
        )
        self.raw = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, *texts: str) -> str:
        """What it shows from now on, until all of the texts appeared; fails after a generous time."""
        seen, deadline = "", time.monotonic() + PATIENCE_SECONDS
        while not all(text in seen for text in texts):
            left = deadline - time.monotonic()
            assert left > 0, f"{texts} never appeared in {seen[-4000:]}"
            if not self._has_more(left):
                continue
            read = os.read(self._master, 65536).decode(errors="replace")
            self.raw += read
            seen = ESCAPES.sub("", seen + read)
        return seen

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def hang_up(self) -> None:
        os.close(self.slave)
        os.close(self._master)
        self._master = self.slave = -1

    def end(self) -> int:
        """Its exit code, everything that it still says read."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.popen.poll() is None or self._has_more(0):
            assert time.monotonic() < deadline, f"it does not end: {self.raw[-2000:]}"
            if self._has_more(0.05):
                self.raw += os.read(self._master, 65536).decode(errors="replace")
        return self.popen.returncode

    def _has_more(self, seconds: float) -> bool:
        return bool(select.select([self._master], [], [], seconds)[0])

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        if self._master >= 0:
            self.hang_up()


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Open]:
    opened = []

    def begin(*arguments: str, size: tuple[int, int] = (80, 24), **more: str) -> Terminal:
        made = Terminal(environment | more, *(arguments or ("cluster", "top")), columns=size[0], lines=size[1])
        opened.append(made)
        return made

    yield begin
    for each in opened:
        each.close()


@pytest.fixture
def fleet(connection: psycopg.Connection, context: Context) -> psycopg.Connection:
    """Workers of each status, as a monitor concluded."""
    for name, silent, cpu in (("gone", 300, 10), ("full", 1, 97), ("busy", 1, 80), ("idle", 1, 5), ("new", None, 0)):
        add_worker(
            connection,
            name=name,
            current_load=json.dumps({"cpuPercent": cpu, "memoryPercent": 40, "diskPercent": 5}),
            capacity=json.dumps({"cpuCores": 4, "memoryMb": 8192, "diskGb": 100}),
        )
        if silent:
            connection.execute(
                "UPDATE container_workers SET last_heartbeat_at = now() - make_interval(secs => %s) WHERE name = %s",
                (silent, name),
            )
    drains.drain(context, [lookup.find_worker(context, "idle").id], TESTS, DrainOptions("new disk"))
    look(context)
    return connection


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (140, 50)])
def test_it_fills_the_terminal_and_q_puts_it_back(
    terminal: Open, fleet: psycopg.Connection, size: tuple[int, int]
) -> None:
    assert fleet
    top = terminal(size=size)
    text = top.until("q quits", "5 workers", "1 offline", "1 unhealthy", "of 12 cores", "gone", "full")
    assert text.index("gone") < text.index("full"), "offline before unhealthy"
    top.press("xQ")
    assert top.end() == 0
    assert top.raw.count("\x1b[?1049h") == top.raw.count("\x1b[?1049l") == 1
    assert top.raw.rindex("\x1b[?25h") > top.raw.rindex("\x1b[?25l"), "the cursor is back"
    assert termios.tcgetattr(top.slave) == top.before


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "hang up"])
def test_what_else_ends_it(terminal: Open, fleet: psycopg.Connection, how: str) -> None:
    assert fleet
    top = terminal()
    top.until("q quits")
    if how == "hang up":
        top.hang_up()
        assert top.popen.wait(PATIENCE_SECONDS) == 0
        return
    if how == "Ctrl-C":
        top.press("\x03")
    else:
        top.popen.send_signal(signal.SIGTERM)
    assert top.end() == 0
    assert "Traceback" not in top.raw
    assert termios.tcgetattr(top.slave) == top.before


def test_events_and_another_size_are_seen(terminal: Open, fleet: psycopg.Connection, context: Context) -> None:
    assert fleet
    top = terminal()
    assert "CONTAINERS" not in top.until("q quits")
    drains.drain(context, [lookup.find_worker(context, "busy").id], TESTS, DrainOptions("to be moved"))
    top.until("busy drain requested: to be moved (tests)")
    look(context)
    top.until("busy active to draining", "2 draining")
    top.resize(120, 30)
    top.until("CONTAINERS", "NOTE", "drain: new disk")
    top.press("q")
    assert top.end() == 0


@pytest.fixture
def server(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    own = EmbeddedPostgres(open_folder / "top")
    with own.running():
        yield own


def test_it_outlives_its_database(terminal: Open, server: EmbeddedPostgres) -> None:
    context = make_context(server.url)
    schema.initialize(context)
    invitations.invite(context, TESTS, "first")
    top = terminal(SKYCTL_DATABASE_URL=server.url)
    top.until("first", "q quits")
    context.db.close()
    with not_started_again(server):
        kill_server(server)
        assert "first" in top.until("no news since "), "the last picture stays"
    server.revive()
    invitations.invite(context, TESTS, "second")
    assert "no news" not in top.until("2 workers", "second", "EVENTS").rpartition("2 workers")[2]
    with frozen(server):
        top.press("q")
        assert top.end() == 0
    context.db.close()


def test_a_database_that_is_away_from_the_start(terminal: Open) -> None:
    top = terminal(SKYCTL_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert top.end() == 5
    assert "error: " in top.raw
    assert "\x1b[?1049h" not in top.raw


def test_colours_and_control_characters(terminal: Open, fleet: psycopg.Connection) -> None:
    add_worker(fleet, name="ev\x1b[41mil\n[red]x", status="offline")
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        top = terminal(**more)
        top.until("ev\\x1b[41mil\\n[red]x", "q quits")
        top.press("q")
        assert top.end() == 0
        assert bool(COLOURS.search(top.raw)) == coloured
        assert "\x1b[41m" not in top.raw


def test_without_a_terminal_it_is_one_plain_page(cli: Cli, terminal: Open, fleet: psycopg.Connection) -> None:
    assert fleet
    done = cli("cluster", "top")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("5 workers", "1 offline", "of 12 cores", "NAME", "EVENTS", "full", "pass ", "drain: new disk"):
        assert words in done.stdout
    assert "q quits" not in done.stdout
    assert "\x1b" not in done.stdout
    dumb = terminal(TERM="dumb")
    assert dumb.end() == 0
    assert "EVENTS" in dumb.raw
    assert "\x1b" not in dumb.raw


def test_one_document(cli: Cli, fleet: psycopg.Connection, context: Context) -> None:
    assert fleet
    document = json.loads(cli("cluster", "top", "-o", "json").stdout)
    assert document["stats"]["totalWorkers"] == 5
    assert [worker["name"] for worker in document["worst"]] == ["gone", "full", "busy", "idle", "new"]
    assert document["events"][-1]["kind"] == "status_changed"
    assert document["monitor"]["leader"] is None
    assert document["massFailures"] == []
    leadership.lead(context, "host:1:x", lambda _: True)
    again = yaml.safe_load(cli("cluster", "top", "-o", "yaml").stdout)
    assert again["monitor"] == document["monitor"] | {"leader": "host:1:x", "term": again["monitor"]["term"]}
    assert cli("cluster", "top", "-o", "name").stdout == "gone\nfull\nbusy\nidle\nnew\n"


def test_who_fell_last_comes_first(context: Context, connection: psycopg.Connection) -> None:
    for name, status, minutes, cpu in (
        ("long gone", "offline", 90, 99),
        ("just gone", "offline", 1, 1),
        ("odd", "offline", None, 1),
        ("fullest", "unhealthy", 9, 99),
        ("full", "unhealthy", 1, 91),
        ("b", "active", 1, 50),
        ("a", "active", 1, 50),
    ):
        worker_id = add_worker(connection, name=name, status=status, current_load=json.dumps({"cpuPercent": cpu}))
        connection.execute(
            "UPDATE container_workers SET status_changed_at = now() - make_interval(mins => %s) WHERE id = %s",
            (minutes, worker_id),
        )
    names = [worker.name for worker in overview_admin.overview(context, 20).worst]
    assert names == ["just gone", "long gone", "odd", "fullest", "full", "a", "b"]
    assert [worker.name for worker in overview_admin.overview(context, 2).worst] == names[:2]


def drawn(picture: top_views.Picture, width: int, height: int) -> list[str]:
    """The lines of a screen of this size, before it is cut."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, markup=False)
    lines = console.render_lines(top_views.FullScreen(picture), console.options.update(height=None), pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(20, 200),
    height=st.integers(3, 70),
    trouble=st.sampled_from(["", "away"]),
    count=st.integers(0, 3),
)
def test_every_size_is_filled_and_never_overrun(
    context: Context, fleet: psycopg.Connection, width: int, height: int, trouble: str, count: int
) -> None:
    assert fleet
    seen = overview(context, height)
    if count < 3:
        seen |= {"worst": seen["worst"][:count], "events": seen["events"][:count]}
    history = [load_document(Load(10 * n, 50, 100, 0)) for n in range(11)]
    lines = drawn(top_views.Picture(seen, history, trouble), width, height)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width
    assert lines[-1].startswith("q quits")
    assert (lines[-2] == "away") == bool(trouble)


def overview(context: Context, most: int = 10) -> Document:
    return overview_document(overview_admin.overview(context, most))


def test_the_footer_warns(context: Context, connection: psycopg.Connection) -> None:
    seen = overview(context)
    assert drawn(top_views.Picture(seen), 80, 24)[-1] == "q quits · no monitor has run yet: statuses do not change"
    assert "No workers" in "\n".join(drawn(top_views.Picture(seen), 80, 24))
    look(context)
    lease = leadership.lead(context, "host:42:abc", lambda _: True)
    assert lease
    assert "by host:42, term " in drawn(top_views.Picture(overview(context)), 80, 24)[-1]
    now = overview_admin.overview(context, 10)
    seen = overview_document(replace(now, monitor_seen_at=now.read_at - timedelta(minutes=5)))
    assert "last pass 5m ago: statuses may be old" in drawn(top_views.Picture(seen), 80, 24)[-1]
    connection.execute("INSERT INTO mass_failures (region, silent, schedulable) VALUES ('eu', 60, 100)")
    held = drawn(top_views.Picture(overview(context)), 100, 24)[-2]
    assert held.startswith("held: 60 of 100 workers in eu failed 0s ago; nothing is moved until they return")


def test_the_last_minute_is_a_line_of_its_own(context: Context) -> None:
    history = [load_document(Load(percent, 0, 0, 0)) for percent in (0, 13, 50, 88, 100)]
    lines = drawn(top_views.Picture(overview(context), history), 80, 24)
    assert any(line.startswith("cpu") and "▁▂▅██" in line for line in lines)
