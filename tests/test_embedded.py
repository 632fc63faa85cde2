"""The embedded PostgreSQL: started on demand, shared, stopped by the last, mended after a kill."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from skyctl.embedded import EmbeddedPostgres
from skyctl.errors import DatabaseUnavailable
from tests.conftest import Cli, clean_environment
from tests.helpers import eventually

HOLD = "import sys; from pathlib import Path; from skyctl.embedded import EmbeddedPostgres\n"
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
        [sys.executable, "-c", HOLD, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=clean_environment(),
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    yield process
    process.kill()
    process.communicate()


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


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
        eventually(lambda: not server.answers())
        server.revive()
        assert ask(url, "SELECT n FROM kept") == 7
    assert not server.answers()


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
def test_root_is_told_where_the_system_user_may_not_go(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
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
