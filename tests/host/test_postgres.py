"""The embedded PostgreSQL: started on demand, shared, stopped by the last, mended after a kill."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest

from skyctl.domain.errors import DatabaseUnavailable
from skyctl.host.postgres import MOST_LOG_BYTES, EmbeddedPostgres
from tests.conftest import Cli, Process, clean_environment
from tests.support.helpers import eventually, not_started_again, ready
from tests.support.shortages import short_of_files

HOLD = "import sys; from pathlib import Path; from skyctl.host.postgres import EmbeddedPostgres\n"
HOLD += "with EmbeddedPostgres(Path(sys.argv[1])).running():\n print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def data_dir(open_folder: Path) -> Iterator[Path]:
    folder = open_folder / uuid4().hex[:8]
    yield folder
    EmbeddedPostgres(folder).stop()


@pytest.fixture
def holder(data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that uses the server until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    yield process
    process.kill()
    process.communicate()


Begin = Callable[..., Process]


@pytest.fixture
def begin(data_dir: Path) -> Iterator[Begin]:
    """Start skyctl on the data folder of the test."""
    started = []

    def begin(*arguments: str) -> Process:
        process = Process([sys.executable, "-m", "skyctl", *arguments], {"SKYCTL_DATA_DIR": str(data_dir)})
        started.append(process)
        return process

    yield begin
    for process in started:
        process.popen.kill()
        process.popen.wait()
        assert process.popen.stderr
        process.popen.stderr.close()


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def answer(url: str, query: str) -> object:
    """The answer, or None while the server is away."""
    try:
        return ask(url, query)
    except psycopg.OperationalError:
        return None


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres/data/postmaster.pid").read_text().splitlines()[0])


def test_the_last_user_stops_it(data_dir: Path, holder: "subprocess.Popen[str]") -> None:
    server = EmbeddedPostgres(data_dir)
    with server.running() as url:
        pid = postmaster(data_dir)
        assert ask(url, "SELECT 1") == 1
    assert server.answers()
    assert postmaster(data_dir) == pid
    holder.communicate("")
    assert not server.answers()


def test_a_killed_user_does_not_count(data_dir: Path, holder: "subprocess.Popen[str]") -> None:
    server = EmbeddedPostgres(data_dir)
    holder.kill()
    holder.wait()
    assert server.answers()
    with server.running():
        pass
    assert not server.answers()


def test_a_killed_server_comes_back_with_its_data(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    with server.running() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        os.kill(postmaster(data_dir), signal.SIGKILL)
        assert eventually(lambda: answer(url, "SELECT n FROM kept")) == 7
    assert not server.answers()


def test_what_a_killed_server_leaves_is_waited_for(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "skyctl.host.postgres")
    with EmbeddedPostgres(data_dir).running() as url, ThreadPoolExecutor() as pool:
        with not_started_again(EmbeddedPostgres(data_dir)):
            server = psutil.Process(postmaster(data_dir))
            # which has long let go of the server's socket, as one that is just made has not
            children = [child for child in server.children() if "checkpointer" in " ".join(child.cmdline())]
            assert children
            for child in children:
                child.suspend()  # as one that the disk holds up
            os.kill(postmaster(data_dir), signal.SIGKILL)
            eventually(lambda: not EmbeddedPostgres(data_dir).answers())
        revived = pool.submit(EmbeddedPostgres(data_dir).revive)
        try:
            eventually(lambda: revived.done() or "waiting for what the killed server has left" in caplog.text)
        finally:
            for child in children:
                child.resume()
        revived.result()
        assert ask(url, "SELECT 1") == 1


@pytest.mark.parametrize("others", [False, True], ids=["of-the-same-user", "of-another-user"])
def test_a_lock_that_names_another_program_is_no_trouble(
    data_dir: Path, caplog: pytest.LogCaptureFixture, others: bool
) -> None:
    """As after a power failure, when numbers of processes are given anew."""
    if os.geteuid() and others:
        pytest.skip("needs root: to start a program as another user")
    caplog.set_level(logging.WARNING, "skyctl.host.postgres")
    with EmbeddedPostgres(data_dir).running():
        pass
    data = data_dir / "postgres" / "data"
    with subprocess.Popen(["sleep", "infinity"], user=65534 if others else data.stat().st_uid) as other:
        (data / "postmaster.pid").write_text(f"{other.pid}\n")
        try:
            with EmbeddedPostgres(data_dir).running() as url:
                assert ask(url, "SELECT 1") == 1
        finally:
            other.kill()
    assert "waiting for what" not in caplog.text


def test_the_servers_log_is_bounded_and_goes_on(data_dir: Path) -> None:
    server, limit = EmbeddedPostgres(data_dir), MOST_LOG_BYTES

    def written() -> int:
        return sum(path.stat().st_size for path in server.home.glob("log*"))

    with server.running() as url, psycopg.connect(url, autocommit=True) as connection:
        for _ in range(4):
            connection.execute(
                f"DO $$ BEGIN FOR i IN 1..{limit >> 20} LOOP RAISE LOG '%', repeat('x', 1 << 20); END LOOP; END $$"
            )
        eventually(lambda: server.log.stat().st_size < limit)
        assert written() <= 2 * limit
        connection.execute("DO $$ BEGIN RAISE LOG 'said afterwards'; END $$")
        assert "said afterwards" in server.log.read_text(), "the server appends to what was emptied"
        assert not server.log.read_bytes().startswith(b"\0")


def test_a_log_that_has_grown_is_cut_when_the_server_is_started(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    with server.running():
        pass
    with server.log.open("ab") as log:
        log.write(b"x" * 3 * MOST_LOG_BYTES + b"the end")
    with server.running():
        assert server.log.stat().st_size < MOST_LOG_BYTES
    kept = server.log.with_name("log.1")
    assert kept.stat().st_size == MOST_LOG_BYTES
    assert kept.read_bytes().endswith(b"the end")


def test_a_log_of_which_nothing_can_be_kept_is_emptied_and_the_server_started_again(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedPostgres(data_dir)
    with server.running() as url:
        server.log.with_name("log.1").mkdir()
        os.kill(postmaster(data_dir), signal.SIGKILL)
        with server.log.open("ab") as log:
            log.write(b"x" * MOST_LOG_BYTES)
        eventually(lambda: server.log.stat().st_size < MOST_LOG_BYTES)
        assert eventually(lambda: answer(url, "SELECT 7")) == 7
        eventually(lambda: "action=log_not_kept" in caplog.text)


def test_a_server_that_cannot_be_started_again_is_said_once_for_each_reason(data_dir: Path, begin: Begin) -> None:
    Cli({"SKYCTL_DATA_DIR": str(data_dir)})("db", "init")
    process = begin("serve", "--port", "0")
    process.until("listening on")
    settings = data_dir / "postgres/data/postgresql.conf"
    whole = settings.read_text()
    settings.write_text(whole + "no setting of PostgreSQL\n")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    log = data_dir / "postgres/log"
    eventually(lambda: log.read_text().count("configuration file") >= 2)
    settings.write_text(whole)
    said = process.until("action=database_lives")
    assert int(re.findall(r"failures=(\d+)", said)[0]) > 3
    told = [line for line in process.seen if "action=database_died" in line]
    assert [("starting it again" in line, "could not start" in line) for line in told] == [(True, False), (False, True)]
    assert process.stop() == 0


@pytest.mark.parametrize(
    "arguments", [["serve", "--port", "0"], ["monitor", "--interval", "1"]], ids=lambda each: each[0]
)
def test_what_runs_for_long_starts_it_again(data_dir: Path, begin: Begin, arguments: list[str]) -> None:
    Cli({"SKYCTL_DATA_DIR": str(data_dir)})("db", "init")
    process = begin(*arguments)
    said = process.until("listening on" if "serve" in arguments else "action=watching")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    process.until("action=database_died")
    if "serve" in arguments:
        url = said.split("listening on ")[1].strip()
        eventually(lambda: ready(url))
    else:
        process.until("action=watching")
    assert process.stop() == 0
    assert not EmbeddedPostgres(data_dir).answers()


def test_whoever_keeps_it_up_goes_on_after_a_shortage_of_files(data_dir: Path, begin: Begin) -> None:
    Cli({"SKYCTL_DATA_DIR": str(data_dir)})("db", "init")
    process = begin("serve", "--port", "0")
    url = process.until("listening on ").split("listening on ")[1].strip()
    eventually(lambda: ready(url))
    with short_of_files(process.popen.pid):
        process.until("loop='postgres'")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    process.until("action=database_died")
    eventually(lambda: ready(url))
    assert process.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("arguments", "sign"), [(["serve", "--port", "0"], "listening on"), (["monitor"], "action=watching")]
)
def test_who_is_ended_stops_it(
    data_dir: Path, begin: Begin, arguments: list[str], sign: str, number: signal.Signals
) -> None:
    Cli({"SKYCTL_DATA_DIR": str(data_dir)})("db", "init")
    process = begin(*arguments)
    process.until(sign)
    code = process.stop(number)
    early = (128 + number, 128 + signal.SIGTERM) if "serve" in arguments else ()
    assert code == 0 or code in early, "the API may not have begun to serve yet, and makes a SIGTERM of SIGHUP"
    assert not EmbeddedPostgres(data_dir).answers()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("command", "sign"),
    [
        (["db", "init"], "data.part"),
        (["db", "init"], "data/postmaster.pid"),
        (["workers", "list"], "data/postmaster.pid"),
        (["monitor"], "data/postmaster.pid"),
    ],
    ids=["db-made", "db-started", "workers", "monitor"],
)
def test_who_is_ended_while_it_starts_stops_it(
    data_dir: Path, begin: Begin, command: list[str], sign: str, number: signal.Signals
) -> None:
    if command != ["db", "init"]:
        with EmbeddedPostgres(data_dir).running():
            pass
    process = begin(*command)
    eventually((data_dir / "postgres" / sign).exists)
    code = process.stop(number)
    own = 5 if "workers" in command else 0  # it may have begun to work, or have found no schema, by then
    worked = code == own and sign == "data/postmaster.pid"
    assert worked or (code, process.seen) == (128 + number, [])
    assert not EmbeddedPostgres(data_dir).answers()
    assert Cli({"SKYCTL_DATA_DIR": str(data_dir)})("db", "init").returncode == 0


def test_who_is_killed_while_it_makes_the_data_is_no_trouble(data_dir: Path, begin: Begin) -> None:
    process = begin("db", "init")
    eventually((data_dir / "postgres/data.part/base").exists)
    process.stop(signal.SIGKILL)
    with EmbeddedPostgres(data_dir).running() as url:
        assert ask(url, "SELECT 1") == 1


def test_the_umask_is_no_trouble(data_dir: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "skyctl", "db", "init", "-o", "json"],
        umask=0o077,
        capture_output=True,
        text=True,
        env=clean_environment() | {"SKYCTL_DATA_DIR": str(data_dir / "deeper" / "still")},
    )
    assert json.loads(made.stdout)["complete"] is True, made.stderr


@pytest.mark.parametrize("name", ["it's", "com,ma", "sp ace%20#?", 'quo"te', "do$llar", "new\nline", "back`tick"])
def test_a_path_that_its_programs_do_not_take_is_said(open_folder: Path, name: str) -> None:
    refused = Cli({"SKYCTL_DATA_DIR": str(open_folder / name)})("workers", "list")
    assert refused.returncode == 5
    error, hint = refused.stderr.splitlines()
    assert error.startswith("error: SKYCTL_DATA_DIR: ")
    assert "letters, digits" in hint
    assert not (open_folder / name).exists()


def test_a_path_with_all_that_they_take(open_folder: Path) -> None:
    folder = open_folder / "a-Zé_9.@:=~"
    made = Cli({"SKYCTL_DATA_DIR": str(folder)})("db", "init")
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("arguments", [["workers", "list"], ["up"], ["workers", "install-script"]])
def test_a_folder_out_of_reach_is_said(arguments: list[str], database_url: str) -> None:
    given = {"SKYCTL_DATABASE_URL": database_url} if "install-script" in arguments else {}
    refused = Cli(given)(*arguments, SKYCTL_DATA_DIR="/dev/null/folder")
    assert refused.returncode == 2
    error, _hint = refused.stderr.splitlines()
    assert error.startswith("error: SKYCTL_DATA_DIR: '/dev/null/folder' cannot be used: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize("room_mib", [0, 10], ids=["for nothing", "for the programs"])
def test_a_full_disk_is_said(data_dir: Path, room_mib: int) -> None:
    with EmbeddedPostgres(data_dir).running():
        programs = next(data_dir.glob("postgres-*"))
    size = sum(path.lstat().st_size for path in programs.rglob("*")) // 2**20 if room_mib else 1
    options = f"mode=755,size={size + room_mib}m"
    mount = f"mount -t tmpfs -o {options} tmpfs {data_dir} && exec {sys.executable} -m skyctl db init"
    refused = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount],
        env=clean_environment() | {"SKYCTL_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 5, refused.stderr
    error, hint = refused.stderr.splitlines()
    assert "No space left on device" in error
    assert f"see that {data_dir} has room" in hint


def test_a_half_made_data_folder_is_made_anew(data_dir: Path) -> None:
    (data_dir / "postgres/data.part").mkdir(parents=True)
    (data_dir / "postgres/data.part/PG_VERSION").write_text("18")
    if os.geteuid() == 0:
        with EmbeddedPostgres(data_dir.parent / uuid4().hex[:8]).running():
            pass  # the system user is there from now on
        shutil.chown(data_dir / "postgres", "skyctl", "skyctl")
    with EmbeddedPostgres(data_dir).running() as url:
        assert ask(url, "SELECT 1") == 1


def test_only_its_own_folder_changes_hands(data_dir: Path) -> None:
    before = [(folder.stat().st_mode, folder.stat().st_uid) for folder in data_dir.parents]
    with EmbeddedPostgres(data_dir).running():
        assert (data_dir / "postgres/data").stat().st_mode & 0o077 == 0
        assert (data_dir / "postgres/socket").stat().st_mode & 0o077 == 0
    assert [(folder.stat().st_mode, folder.stat().st_uid) for folder in data_dir.parents] == before
    assert data_dir.stat().st_uid == os.geteuid()


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="too long"), EmbeddedPostgres(tmp_path / ("x" * 100)).running():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a folder that a system user may enter")
def test_root_is_told_where_the_system_user_may_not_go(open_folder: Path) -> None:
    closed = open_folder / uuid4().hex[:8]
    closed.mkdir(mode=0o700)
    with pytest.raises(DatabaseUnavailable, match="may not enter") as error, EmbeddedPostgres(closed / "d").running():
        pass
    assert "SKYCTL_DATA_DIR" in error.value.hint
    assert closed.stat().st_mode & 0o777 == 0o700


def test_commands_start_it_and_stop_it(data_dir: Path) -> None:
    cli = Cli({"SKYCTL_DATA_DIR": str(data_dir)})
    assert cli("db", "init").returncode == 0
    assert not EmbeddedPostgres(data_dir).answers()
    listed = cli("workers", "list")
    assert listed.stdout == "No workers.\n"
    assert not EmbeddedPostgres(data_dir).answers()
