"""Nobody else can hold a lock of ours; where one of ours is held for long, whoever waits says by whom."""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import pytest

from skyctl.host import data_dir
from skyctl.host.certificates import Certificates
from skyctl.host.keyring import Keyring
from skyctl.host.postgres import EmbeddedPostgres
from tests.conftest import clean_environment
from tests.security import adversary
from tests.support.helpers import PATIENCE_SECONDS

HOLD = """
import fcntl, sys
with open(sys.argv[1]) as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
# A run of the script; one while somebody else tries to hold each folder; and one while another run is at work.
SCENE = """
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/systemd/system
sh "$1" 2>&1
stat -c '%u %a' /run/skypanel-worker-install
for folder in /run /run/systemd/system /run/skypanel-worker-install; do
  setpriv --reuid="$2" --clear-groups flock --no-fork "$folder" sleep 1000 2>/dev/null &
  while flock --nonblock "$folder" true && kill -0 $! 2>/dev/null; do :; done
  sh "$1" 2>&1
  kill $! 2>/dev/null
done
flock --no-fork /run/skypanel-worker-install sleep 1000 &
while flock --nonblock /run/skypanel-worker-install true; do :; done
echo $! >/run/skypanel-worker-install/holder
sh "$1" 2>&1 | { read -r line; echo "$line"; kill $!; cat; }
"""


@pytest.fixture
def folder(open_folder: Path) -> Path:
    return open_folder / uuid4().hex[:8]


@pytest.fixture
def hold() -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """Hold the lock of a file in another process, until that one's stdin is closed."""
    started = []

    def hold(path: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_other_user_takes_a_lock_of_ours(folder: Path) -> None:
    Keyring(folder, str).check()
    Keyring(folder, str).rotate(datetime.now(UTC), datetime.now(UTC))
    Certificates(folder).make(["localhost"], datetime.now(UTC))
    with data_dir.only_up(folder, "http://localhost"), EmbeddedPostgres(folder).running():
        locks = {path for path in folder.rglob("*") if path.name.endswith((".lock", ".users"))}
        assert {str(path.relative_to(folder)) for path in locks} >= {
            "up.lock",
            "changes.lock",
            "tls/changes.lock",
            "postgres.lock",
            "postgres.users",
        }
        with adversary.acting():
            for path in locks:
                with pytest.raises(PermissionError):
                    os.open(path, os.O_RDONLY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["", "tls"])
def test_a_folder_that_others_may_read_is_no_lock(folder: Path, name: str) -> None:
    """They hold the folder itself, and what is done in it goes on."""
    Keyring(folder, str).check()
    Certificates(folder).make(["localhost"], datetime.now(UTC))
    with adversary.acting():
        number = os.open(folder / name, os.O_RDONLY)
        fcntl.flock(number, fcntl.LOCK_EX)
    command = "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
    command += "from skyctl.host.certificates import Certificates; from skyctl.host.keyring import Keyring\n"
    command += "folder, now = Path(sys.argv[1]), datetime.now(UTC); Keyring(folder, str).rotate(now, now)\n"
    command += "Certificates(folder).make(['another'], now)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", command, str(folder)],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        os.close(number)


def test_a_lock_that_an_older_version_left_open_to_others_is_closed(folder: Path) -> None:
    folder.mkdir()
    for name in ("up.lock", "postgres.lock"):
        (folder / name).touch(mode=0o644)
        (folder / name).chmod(0o644)
    with data_dir.only_up(folder, "http://localhost"):
        assert (folder / "up.lock").stat().st_mode & 0o777 == 0o600


def test_who_waits_says_for_whom(folder: Path, hold: Callable[[Path], "subprocess.Popen[str]"]) -> None:
    Certificates(folder).make(["localhost"], datetime.now(UTC))
    holder = hold(folder / "tls/changes.lock")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "skyctl", "tls", "init", "--renew"],
        env=clean_environment() | {"SKYCTL_DATA_DIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr
    with waiting.stderr as said:
        line = said.readline()
        assert f"process {holder.pid} ({sys.executable} -c " in line
        assert f"holds {folder}/tls/changes.lock" in line
        holder.communicate("")
        assert "made " in said.read()
    assert waiting.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has mount namespaces")
def test_nobody_else_holds_the_lock_of_the_install_script(tmp_path: Path) -> None:
    parts = [files("skyctl.installer").joinpath(f"parts/{name}.sh").read_text() for name in ("paths", "messages")]
    script = tmp_path / "script"
    script.write_text("set -eu\n" + "".join(parts) + "begin\nsay begun\n")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCENE, "sh", str(script), str(adversary.NUMBER)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    begun, lock, *others, waiting, at_last = done.stdout.splitlines()
    assert (begun, lock) == ("skypanel-worker: begun", "0 700"), done.stderr
    assert others == ["skypanel-worker: begun"] * 3
    assert re.search(r"waiting for it to end \(process \d+: sleep 1000 \)", waiting)
    assert at_last == "skypanel-worker: begun"
