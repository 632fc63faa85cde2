"""skyctl up: one command, a whole cluster of one machine, and nothing left behind."""

import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest

from skyctl import data_folder
from skyctl.embedded import EmbeddedPostgres
from tests.conftest import Cli, Process, clean_environment
from tests.helpers import admin_token, bearer, eventually


@pytest.fixture
def data_dir(open_folder: Path) -> Iterator[Path]:
    folder = open_folder / uuid4().hex[:8]
    yield folder
    EmbeddedPostgres(folder).stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cli(data_dir: Path) -> Cli:
    """skyctl in a second terminal, on the embedded database."""
    return Cli({"SKYCTL_DATA_DIR": str(data_dir)})


@pytest.fixture
def up(data_dir: Path) -> Iterator[Process]:
    process = Process([sys.executable, "-m", "skyctl", "up"], {"SKYCTL_DATA_DIR": str(data_dir)})
    yield process
    if process.popen.poll() is None:
        process.popen.kill()
        process.popen.wait()
    if process.popen.stderr:
        process.popen.stderr.close()


def family(data_dir: Path) -> list[psutil.Process]:
    """The living processes that were told this data folder: ours by their environment, PostgreSQL's by their folder."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.pid != os.getpid() and (
                process.environ().get("SKYCTL_DATA_DIR") == str(data_dir) or process.cwd().startswith(str(data_dir))
            ):  # fmt: skip
                found.append(process)
        except psutil.Error:
            continue
    return found


def parts(data_dir: Path, name: str) -> list[int]:
    """The process ids of one part of `up`."""
    found = []
    for process in family(data_dir):
        with suppress(psutil.Error):
            if name in process.cmdline():
                found.append(process.pid)
    return found


def local_worker(cli: Cli) -> dict[str, object]:
    listed = cli("workers", "list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    workers = json.loads(listed.stdout)["workers"]
    assert len(workers) == 1
    return dict(workers[0])


def test_this_machine_is_active_with_its_real_load(up: Process, cli: Cli, data_dir: Path) -> None:
    up.until("this machine is active")
    worker = local_worker(cli)
    assert worker["status"] == "active"
    assert worker["capacity"]["cpuCores"] == psutil.cpu_count()  # type: ignore[index]
    load: dict[str, float] = worker["currentLoad"]  # type: ignore[assignment]
    assert load["memoryPercent"] == pytest.approx(psutil.virtual_memory().percent, abs=15)
    assert load["diskPercent"] == pytest.approx(psutil.disk_usage("/").percent, abs=5)
    assert 0 <= load["cpuPercent"] <= 100
    assert json.loads(cli("cluster", "stats", "-o", "json").stdout)["activeWorkers"] == 1
    assert len(family(data_dir)) > 4

    second = cli("up")
    assert second.returncode == 4
    assert "runs already" in second.stderr

    assert up.stop(signal.SIGINT) == 0
    eventually(lambda: not family(data_dir))
    assert local_worker(cli)["status"] == "offline", "it is marked as gone"


def test_the_second_time_it_is_the_same_worker(cli: Cli, data_dir: Path) -> None:
    ids = set()
    for _ in range(2):
        process = Process([sys.executable, "-m", "skyctl", "up"], {"SKYCTL_DATA_DIR": str(data_dir)})
        process.until("this machine is active")
        ids.add(local_worker(cli)["id"])
        assert process.stop(signal.SIGTERM) == 0
        assert process.popen.stderr
        process.popen.stderr.close()
    assert len(ids) == 1


def test_killed_it_leaves_only_the_database_which_the_next_command_stops(up: Process, cli: Cli, data_dir: Path) -> None:
    up.until("this machine is active")
    up.popen.kill()
    up.popen.wait()
    eventually(lambda: not [one for one in family(data_dir) if "postgres" not in one.name()])
    assert cli("workers", "list").returncode == 0
    eventually(lambda: not family(data_dir))


def test_a_part_that_dies_is_started_again(up: Process, data_dir: Path) -> None:
    up.until("this machine is active")
    for part in ("monitor", "serve"):
        victim = next(one for one in family(data_dir) if one.cmdline()[-1:] == [part] or part in one.cmdline())
        victim.kill()
        up.until(f"{part}: ended")
    up.until("listening on")
    EmbeddedPostgres(data_dir).stop()
    up.until("starting it again")
    eventually(EmbeddedPostgres(data_dir).answers)
    assert up.stop() == 0


def test_its_terminal_may_go_away(cli: Cli, data_dir: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "skyctl", "up"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one call that takes no lock
        env=clean_environment() | {"SKYCTL_DATA_DIR": str(data_dir), "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    try:
        screen = b""
        while b"action=accepted" not in screen:
            screen += os.read(master, 65536)
        os.close(master)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not family(data_dir))
    assert local_worker(cli)["status"] == "offline"


def test_who_reads_it_may_go_away(up: Process, cli: Cli, data_dir: Path) -> None:
    up.until("action=accepted")
    assert up.popen.stderr
    up.popen.stderr.close()
    [victim] = parts(data_dir, "monitor")
    os.kill(victim, signal.SIGKILL)  # which is said to nobody
    eventually(lambda: set(parts(data_dir, "monitor")) - {victim})
    up.popen.send_signal(signal.SIGTERM)
    assert up.popen.wait(60) == 0
    eventually(lambda: not family(data_dir))
    assert local_worker(cli)["status"] == "offline"


@pytest.mark.parametrize("text", ["", "[1]", "[" * 100_000], ids=["empty", "list", "deep"])
def test_a_damaged_file_of_the_agent_is_written_anew(up: Process, data_dir: Path, text: str) -> None:
    up.until("action=accepted")
    assert up.stop() == 0
    (data_dir / "agent.json").write_text(text)
    again = Process([sys.executable, "-m", "skyctl", "up"], {"SKYCTL_DATA_DIR": str(data_dir)})
    try:
        again.until("action=accepted")
    finally:
        assert again.stop() == 0
        assert again.popen.stderr
        again.popen.stderr.close()


def test_scripts_carry_the_address_where_it_listens(data_dir: Path, cli: Cli) -> None:
    """On another port than the usual one, both the command line and the API know it; afterwards it is forgotten."""
    with suppress(OSError), socket.create_server(("127.0.0.1", 8642)):
        up = Process([sys.executable, "-m", "skyctl", "up"], {"SKYCTL_DATA_DIR": str(data_dir)})
        up.until("action=accepted")
    url = next(line for line in up.seen if "API on" in line).split()[3]
    assert not url.endswith(":8642")
    assert f"{url}" in cli("workers", "install-script").stdout
    with psycopg.connect(EmbeddedPostgres(data_dir).url, autocommit=True) as connection:
        admin = admin_token((data_dir / "jwt-secret").read_text(), connection)
    made = httpx.post(f"{url}/api/workers/generate-script", headers=bearer(admin), json={})
    assert url in made.json()["data"]["script"]
    given = cli("workers", "install-script", SKYCTL_API_URL="https://given.example.com").stdout
    assert "https://given.example.com" in given
    assert url not in given
    up.popen.kill()
    up.popen.wait()
    assert up.popen.stderr
    up.popen.stderr.close()
    assert "http://127.0.0.1:8642" in cli("workers", "install-script").stdout
    eventually(lambda: not family(data_dir))


def test_a_database_of_others_is_not_started_again(data_dir: Path, open_folder: Path) -> None:
    folder = open_folder / uuid4().hex[:8]
    data_folder.prepare(folder)
    others = EmbeddedPostgres(folder)
    others.revive()
    environment = {"SKYCTL_DATA_DIR": str(data_dir), "SKYCTL_DATABASE_URL": others.url}
    up = Process([sys.executable, "-m", "skyctl", "up"], environment)
    try:
        up.until("action=accepted")
        others.stop()
        up.until("does not answer")
        assert up.stop() == 0
    finally:
        up.popen.kill()
        up.popen.wait()
        assert up.popen.stderr
        up.popen.stderr.close()
        others.stop()
    assert "could not mark this machine as gone" in "".join(up.seen)
    assert "starting it again" not in "".join(up.seen)


def test_on_a_terminal_it_shows_a_live_table(data_dir: Path, cli: Cli, tmp_path: Path) -> None:
    screen = tmp_path / "screen"
    command = f"exec {sys.executable} -m skyctl up"
    terminal = subprocess.Popen(
        ["script", "-qefc", command, str(screen)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env=clean_environment() | {"SKYCTL_DATA_DIR": str(data_dir), "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )  # fmt: skip
    try:
        eventually(lambda: screen.exists() and "\x1b[32mactive" in screen.read_text(errors="replace"))
        assert "Ctrl-C stops" in screen.read_text(errors="replace")
        assert terminal.stdin
        terminal.stdin.write(b"\x03")
        terminal.stdin.flush()
        assert terminal.wait(60) == 0
    finally:
        terminal.kill()
        terminal.communicate()
    eventually(lambda: not family(data_dir))
    assert local_worker(cli)["status"] == "offline"
