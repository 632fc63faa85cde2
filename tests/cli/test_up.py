"""skyctl up: one command, a whole cluster of one machine, and nothing left behind."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest

from skyctl.host import data_dir as data_folder
from skyctl.host.postgres import EmbeddedPostgres
from tests.conftest import Cli, Process, clean_environment
from tests.support.docker_stub import Answer, engine
from tests.support.helpers import PATIENCE_SECONDS, add_worker, admin_token, bearer, eventually, get
from tests.support.shortages import short_of_files


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


Begin = Callable[..., Process]
# How busy others make this machine is no finding, and waiting until they do not is long.
ANY_LOAD = {"WORKER_CPU_LIMIT": "100", "WORKER_MEMORY_LIMIT": "100", "WORKER_DISK_LIMIT": "100"}


@pytest.fixture
def begin(data_dir: Path) -> Iterator[Begin]:
    """Start skyctl up on the data folder of the test."""
    started = []

    def begin(**environment: str) -> Process:
        given = {"SKYCTL_DATA_DIR": str(data_dir), **ANY_LOAD, **environment}
        process = Process([sys.executable, "-m", "skyctl", "up"], given)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.popen.kill()
        process.popen.wait()
        assert process.popen.stderr
        process.popen.stderr.close()


@pytest.fixture
def up(begin: Begin) -> Process:
    return begin()


LOOKED_AT = ["pid", "name", "cmdline", "status", "environ", "cwd"]


def family(data_dir: Path) -> list[dict[str, Any]]:
    """The living processes that were told this data folder: ours by their environment, PostgreSQL's by their folder."""
    infos = [process.info for process in psutil.process_iter(LOOKED_AT)]
    return [info for info in infos if info["status"] != psutil.STATUS_ZOMBIE and belongs(info, data_dir)]


def belongs(info: dict[str, Any], data_dir: Path) -> bool:
    told = (info["environ"] or {}).get("SKYCTL_DATA_DIR") == str(data_dir)
    return info["pid"] != os.getpid() and (told or (info["cwd"] or "").startswith(str(data_dir)))


def parts(data_dir: Path, name: str) -> list[int]:
    """The process ids of one part of `up`."""
    return [info["pid"] for info in family(data_dir) if name in (info["cmdline"] or ())]


def engines_folder() -> str:
    """Where the local Docker engine keeps its data, whose file system the agent measures; the root where there is
    none."""
    engine = "/var/run/docker.sock"
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(engine):
            return "/"
    with httpx.Client(transport=httpx.HTTPTransport(uds=engine), timeout=PATIENCE_SECONDS) as client:
        return str(client.get("http://docker/info").json()["DockerRootDir"])


def local_worker(cli: Cli) -> dict[str, object]:
    listed = cli("workers", "list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    workers = json.loads(listed.stdout)["workers"]
    assert len(workers) == 1
    return dict(workers[0])


def test_this_machine_is_active_with_its_real_load(begin: Begin, cli: Cli, data_dir: Path) -> None:
    up = begin(WORKER_HEARTBEAT_INTERVAL="2", WORKER_HEARTBEAT_TIMEOUT="60")
    up.until("this machine is active")
    eventually(lambda: json.loads(cli("cluster", "stats", "-o", "json").stdout)["activeWorkers"] == 1)
    worker = local_worker(cli)
    assert worker["capacity"]["cpuCores"] == psutil.cpu_count()  # type: ignore[index]
    load: dict[str, float] = worker["currentLoad"]  # type: ignore[assignment]
    assert load["memoryPercent"] == pytest.approx(psutil.virtual_memory().percent, abs=15)
    assert load["diskPercent"] == pytest.approx(psutil.disk_usage(engines_folder()).percent, abs=5)
    assert 0 <= load["cpuPercent"] <= 100
    assert len(family(data_dir)) > 4

    second = cli("up")
    assert second.returncode == 4
    assert "runs already" in second.stderr

    assert up.stop(signal.SIGINT) == 0
    eventually(lambda: not family(data_dir))
    assert local_worker(cli)["status"] == "offline", "it is marked as gone"


def test_the_second_time_it_is_the_same_worker(begin: Begin, cli: Cli) -> None:
    ids = set()
    for _ in range(2):
        process = begin()
        process.until("action=accepted")
        ids.add(local_worker(cli)["id"])
        assert process.stop(signal.SIGTERM) == 0
    assert len(ids) == 1


def test_a_token_that_was_replaced_is_no_reason_to_be_another_worker(begin: Begin, cli: Cli) -> None:
    quick = {"WORKER_HEARTBEAT_INTERVAL": "0.5"}
    first = begin(**quick)
    first.until("this machine is active", 300)
    before = local_worker(cli)
    name = str(before["name"])
    assert cli("workers", "rotate-token", name).returncode == 0
    eventually(lambda: f"token_rotated {name}" in cli("events").stdout)
    assert first.stop() == 0
    begin(**quick).until("this machine is active", 300)
    assert local_worker(cli)["id"] == before["id"]


def test_killed_it_leaves_only_the_database_which_the_next_command_stops(up: Process, cli: Cli, data_dir: Path) -> None:
    up.until("action=accepted")
    up.popen.kill()
    up.popen.wait()
    eventually(lambda: not [one for one in family(data_dir) if "postgres" not in one["name"]])
    assert cli("workers", "list").returncode == 0
    eventually(lambda: not family(data_dir))


def test_a_part_that_dies_is_started_again(up: Process, data_dir: Path) -> None:
    url = up.until("API on").split()[3]
    up.until("action=accepted")
    for part in ("monitor", "serve"):
        [victim] = parts(data_dir, part)
        os.kill(victim, signal.SIGKILL)
        up.until(f"{part}: ended")
    assert get(f"{url}/readyz").status_code == 200, (
        "who asks meanwhile has to wait, and no other program takes the port"
    )
    EmbeddedPostgres(data_dir).stop()
    up.until("starting it again")
    eventually(EmbeddedPostgres(data_dir).answers)
    assert up.stop() == 0


def test_it_goes_on_after_a_shortage_of_files(up: Process, data_dir: Path) -> None:
    up.until("action=accepted")
    [victim] = parts(data_dir, "monitor")
    with short_of_files(up.popen.pid):
        os.kill(victim, signal.SIGKILL)
        up.until("monitor: ended")
        up.until("Too many open files")
    eventually(lambda: parts(data_dir, "monitor"))
    assert up.stop() == 0


def test_its_terminal_may_go_away(cli: Cli, data_dir: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "skyctl", "up"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one call that takes no lock
        env=clean_environment() | {"SKYCTL_DATA_DIR": str(data_dir), "TERM": "xterm"},
    )
    os.close(slave)
    try:
        screen = b""
        while b"action=accepted" not in screen:
            assert select.select([master], [], [], PATIENCE_SECONDS)[0], screen
            screen += os.read(master, 65536)
        os.close(master)
        assert process.wait(PATIENCE_SECONDS) == 0
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
    assert up.popen.wait(PATIENCE_SECONDS) == 0
    eventually(lambda: not family(data_dir))
    assert local_worker(cli)["status"] == "offline"


@pytest.mark.parametrize("text", ["", "[1]", "[" * 100_000], ids=["empty", "list", "deep"])
def test_a_damaged_file_of_the_agent_is_written_anew(begin: Begin, data_dir: Path, text: str) -> None:
    up = begin()
    up.until("action=accepted")
    assert up.stop() == 0
    (data_dir / "agent.json").write_text(text)
    again = begin()
    again.until("action=accepted")
    assert again.stop() == 0


def test_what_is_meant_for_another_agent_is_not_for_this_one(begin: Begin) -> None:
    up = begin(SKYAGENT_API_URL="http://127.0.0.1:1", SKYAGENT_TOKEN="another's")
    assert "failures=0" in up.until("action=accepted")
    assert up.stop() == 0


def test_scripts_carry_the_address_where_it_listens(data_dir: Path, begin: Begin, cli: Cli) -> None:
    """On another port than the usual one, both the command line and the API know it; afterwards it is forgotten."""
    with ExitStack() as stack:
        with suppress(OSError):  # others hold it already
            stack.enter_context(socket.create_server(("127.0.0.1", 8642)))
        up = begin()
        up.until("action=accepted")
    url = next(line for line in up.seen if "API on" in line).split()[3]
    assert not url.endswith(":8642")
    made = cli("workers", "install-script")
    assert f"{url}" in made.stdout
    assert "release_key=''" not in made.stdout, "by the key that is here"
    assert "the key of releases is not here" not in made.stderr
    with psycopg.connect(EmbeddedPostgres(data_dir).url, autocommit=True) as connection:
        admin = admin_token((data_dir / "jwt-secret").read_text(), connection)
    asked = partial(httpx.post, f"{url}/api/workers/generate-script", headers=bearer(admin), timeout=PATIENCE_SECONDS)
    eventually(lambda: asked(json={}).is_success)  # once the monitor has looked
    assert url in asked(json={}).json()["data"]["script"]
    given = cli("workers", "install-script", SKYCTL_API_URL="https://given.example.com").stdout
    assert "https://given.example.com" in given
    assert url not in given
    up.popen.kill()
    up.popen.wait()
    assert "http://127.0.0.1:8642" in cli("workers", "install-script").stdout
    eventually(lambda: not family(data_dir))


def test_a_swarm_that_begins_meanwhile_has_this_machine_as_its_node(
    begin: Begin, data_dir: Path, tmp_path: Path
) -> None:
    swarm = {"LocalNodeState": "inactive", "ControlAvailable": False, "NodeID": ""}

    def answer(_method: str, path: str) -> Answer:
        return (200, {"ServerVersion": "28.0", "Swarm": swarm}) if path == "/info" else (503, {"message": "no manager"})

    with engine(tmp_path, answer) as address:
        begin(DOCKER_HOST=address).until("action=accepted")
        with psycopg.connect(EmbeddedPostgres(data_dir).url, autocommit=True) as connection:
            swarm.update(LocalNodeState="active", ControlAvailable=True, NodeID="head")
            connection.execute(
                "UPDATE container_workers SET swarm_node_claim = 'head', swarm_node_trouble = 'the node is a manager'"
            )
            allowed = "SELECT swarm_node_allowed FROM container_workers"
            eventually(lambda: connection.execute(allowed).fetchone() == ("head",))


def test_its_agent_looks_at_the_engine_that_docker_host_names(begin: Begin, cli: Cli, tmp_path: Path) -> None:
    info = {"ServerVersion": "28.7", "ContainersRunning": 41, "DockerRootDir": "/"}
    swarm = {"Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False, "NodeID": ""}}

    with engine(tmp_path, lambda _method, path: (200, info | swarm if path == "/info" else [])) as address:
        begin(DOCKER_HOST=address).until("action=accepted")
        eventually(lambda: local_worker(cli)["currentLoad"]["containerCount"] == 41)  # type: ignore[index]


@pytest.mark.parametrize("host", ["tcp://us:pass@127.0.0.1:9", "ssh://host"])
def test_of_an_engine_elsewhere_it_says_that_its_agent_looks_at_the_local_one(begin: Begin, host: str) -> None:
    up = begin(DOCKER_HOST=host)
    said = up.until("an agent asks engines of its own machine alone")
    assert "unix:///" in said
    assert "pass" not in said
    up.until("action=accepted")


def test_what_is_said_is_kept_in_a_file(begin: Begin, data_dir: Path) -> None:
    up = begin()
    path = Path(up.until(", log in ").rpartition(" in ")[2].strip())
    assert path.parent == data_dir
    assert path.stat().st_mode & 0o777 == 0o600
    up.until("action=accepted")
    assert up.stop() == 0
    kept = path.read_text()
    assert [line for line in up.seen if line.strip() not in kept] == []
    assert "up: stopping\n" in kept
    assert "action=stopped" in kept, "what its parts say as they end"


def test_the_file_is_no_link_to_elsewhere(cli: Cli, data_dir: Path) -> None:
    data_folder.prepare(data_dir)
    (data_dir / "up.log").symlink_to("/dev/full")
    refused = cli("up")
    assert refused.returncode == 4
    assert "is a link" in refused.stderr


def test_a_database_of_others_is_not_started_again(begin: Begin, open_folder: Path) -> None:
    folder = open_folder / uuid4().hex[:8]
    data_folder.prepare(folder)
    others = EmbeddedPostgres(folder)
    with others.running():
        pass
    others.revive()
    up = begin(SKYCTL_DATABASE_URL=others.url)
    try:
        up.until("action=accepted")
        others.stop()
        up.until("does not answer")
        assert up.stop() == 0
    finally:
        others.stop()
    assert "could not mark this machine as gone" in "".join(up.seen)
    assert "starting it again" not in "".join(up.seen)


@contextmanager
def on_terminal(data_dir: Path, folder: Path, rows: int, columns: int = 120) -> Iterator[Callable[[], list[str]]]:
    """skyctl up on a terminal of so many rows, until Ctrl-C; gives what looks at the pictures of its screen."""
    typescript = folder / "screen"
    command = f"stty rows {rows} cols {columns}; exec {sys.executable} -m skyctl up"
    terminal = subprocess.Popen(
        ["script", "-qefc", command, str(typescript)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=clean_environment() | {"SKYCTL_DATA_DIR": str(data_dir), "TERM": "xterm"},
    )
    try:
        yield lambda: typescript.read_text(errors="replace").split("HEARTBEAT") if typescript.exists() else []
        assert terminal.stdin
        terminal.stdin.write(b"\x03")
        terminal.stdin.flush()
        assert terminal.wait(PATIENCE_SECONDS) == 0
    finally:
        terminal.kill()
        terminal.communicate()


def test_on_a_terminal_it_shows_a_live_table(data_dir: Path, cli: Cli, tmp_path: Path) -> None:
    with on_terminal(data_dir, tmp_path, rows=40) as pictures:
        judged = re.compile("\x1b\\[32mactive|\x1b\\[33munhealthy")  # by how busy it is
        eventually(lambda: any(judged.search(picture) and "Ctrl-C stops" in picture for picture in pictures()))
    eventually(lambda: not family(data_dir))
    assert local_worker(cli)["status"] == "offline"


def test_where_more_workers_than_rows_are_the_log_and_the_total_stay(data_dir: Path, tmp_path: Path) -> None:
    with on_terminal(data_dir, tmp_path, rows=16) as pictures:
        eventually(lambda: any("action=accepted" in picture for picture in pictures()))
        with psycopg.connect(EmbeddedPostgres(data_dir).url, autocommit=True) as connection:
            for number in range(30):
                add_worker(connection, name=f"another-{number}")
        wanted = ("1 to 3 of 31 workers", "action=accepted", "Ctrl-C stops")
        eventually(lambda: any(all(text in picture for text in wanted) for picture in pictures()))


def test_on_a_narrow_terminal_lines_are_folded_and_whole(data_dir: Path, tmp_path: Path) -> None:
    with on_terminal(data_dir, tmp_path, rows=40, columns=64) as pictures:
        wanted = ("action=accepted", "failures=0", "Ctrl-C stops")  # the second ends the line of the first
        eventually(lambda: any(all(text in picture for text in wanted) for picture in pictures()))
