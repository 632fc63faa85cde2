"""What a killed process left half written may hold a secret: the next start removes it, and nothing else."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli

WRITE = """
import resource, signal, sys
from pathlib import Path
from skyctl.host import data_dir
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
data_dir.write_private(Path(sys.argv[1]), "a-secret-" * 10)
"""


def killed_while_it_writes(path: Path) -> Path:
    """What a process leaves that the kernel ends in the middle of a write."""
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", WRITE, str(path)], check=False)
    assert done.returncode == -signal.SIGXFSZ
    [left] = set(path.parent.iterdir()) - before
    assert left.read_text() == "a-secret-a-secre"
    return left


def test_the_next_start_removes_it(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "tls").mkdir(parents=True)
    left = [killed_while_it_writes(data / "jwt-secret"), killed_while_it_writes(data / "tls/server.key")]
    assert cli("workers", "list", SKYCTL_DATA_DIR=str(data)).returncode == 0
    assert [path for path in left if path.exists()] == []


def test_what_is_being_written_or_is_not_ours_stays(cli: Cli, tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.write_text("somebody's")
    names = (".jwt-secret.swp", ".note.12.0123456", "jwt-secret.12.01234567", ".jwt-secret.12.0123456X")
    for name in names:
        (data / name).write_text("somebody's")
    (data / ".link.12.01234567").symlink_to(elsewhere)
    with (data / ".jwt-secret.12.01234567").open("w") as written:
        written.write("by another process")
        written.flush()
        fcntl.flock(written, fcntl.LOCK_EX)
        assert cli("workers", "list", SKYCTL_DATA_DIR=str(data)).returncode == 0
    assert {*names, ".link.12.01234567", ".jwt-secret.12.01234567"} <= {path.name for path in data.iterdir()}
    assert elsewhere.read_text() == "somebody's"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root cleans folders of other users")
def test_root_removes_no_file_of_a_second_name_or_of_a_third_user(cli: Cli, tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    os.chown(data, 61_234, 61_234)
    elsewhere.write_text("root's")
    linked, strange = data / ".linked.12.01234567", data / ".strange.12.01234567"
    linked.hardlink_to(elsewhere)
    strange.write_text("a third user's")
    os.chown(strange, 61_235, 61_235)
    cli("workers", "list", SKYCTL_DATA_DIR=str(data))
    assert linked.exists()
    assert strange.exists()
