"""Where an install script goes: into a file for one reader, and what is said where others may read it."""

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli, clean_environment
from tests.support.helpers import PATIENCE_SECONDS

pytestmark = pytest.mark.in_process

INVITE = ("workers", "install-script", "--api-url", "https://m.example.com")
NOBODY = 65534


@pytest.mark.parametrize(
    ("options", "holds", "before"),
    [
        ((), "#!/bin/sh", None),
        ((), "#!/bin/sh", 0o644),
        (("--link",), "/install/", 0o600),
        (("-o", "json"), '"token"', 0o666),
    ],
)
def test_a_named_file_is_for_its_owner_alone(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], holds: str, before: int | None
) -> None:
    file = tmp_path / "scripts" / "web-1.sh"
    file.parent.mkdir()
    if before is not None:
        file.write_text("an older one")
        file.chmod(before)
    done = cli(*INVITE, *options, "--file", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert holds in file.read_text()
    assert list(file.parent.iterdir()) == [file]


def folder(path: Path) -> str:
    path.mkdir()
    return f"{path} is a folder"


def link(path: Path) -> str:
    path.symlink_to(path.with_name("elsewhere"))
    return f"{path} is a link"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return f"{path} is a link, or no regular file"


def strangers(path: Path) -> str:
    path.touch()
    try:
        os.chown(path, NOBODY, NOBODY)
    except PermissionError:
        pytest.skip("needs root, to make a file of another user")
    return f"{path} belongs to user {NOBODY}"


def open_folder(path: Path) -> str:
    path.parent.chmod(0o777)
    return f"everybody may write in {path.parent}, and so "


@pytest.mark.parametrize("scene", [open_folder, folder, link, pipe, strangers])
def test_what_is_no_file_of_ones_own_is_refused_before_anybody_is_invited(
    cli: Cli, tmp_path: Path, scene: Callable[[Path], str]
) -> None:
    path = tmp_path / "web-1.sh"
    _is_refused(cli, path, scene(path))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/sys/web-1.sh", "cannot be written: "),
        (f"/tmp/{'w' * 256}", "cannot be written: File name too long"),
        ("/no/such folder/web-1.sh", "mkdir -p '/no/such folder'"),
    ],
)
def test_a_folder_that_takes_no_file_is_refused_before_anybody_is_invited(cli: Cli, path: str, words: str) -> None:
    _is_refused(cli, Path(path), words)


def _is_refused(cli: Cli, path: Path, words: str) -> None:
    done = cli(*INVITE, "--file", str(path))
    assert (done.returncode, done.stdout) == (4, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: --file: ")
    assert "\nhint: " in done.stderr
    assert json.loads(cli("workers", "list", "-o", "json").stdout)["total"] == 0


def test_a_disk_that_is_full_leaves_the_file_as_it_was(environment: dict[str, str], tmp_path: Path) -> None:
    """The disk is a small one in a mount namespace of the command's own."""
    file = tmp_path / "disk" / "web-1.sh"
    file.parent.mkdir()
    scene = (
        'mount -t tmpfs -o size=8k tmpfs "$1" && echo an older one >"$1/web-1.sh" && cd "$1" && shift || exit 99; '
        '"$@"; code=$?; ls -A; cat web-1.sh; exit $code'
    )
    command = [sys.executable, "-m", "skyctl", *INVITE, "--file", str(file)]
    root = ["--map-root-user"] if os.geteuid() else []
    done = subprocess.run(
        ["unshare", *root, "--mount", "sh", "-c", scene, "sh", str(file.parent), *command],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 4, done.stderr
    assert f"error: --file: {file} cannot be written: No space left on device\nhint: " in done.stderr
    assert done.stdout == "web-1.sh\nan older one\n"


@pytest.mark.parametrize(
    ("mode", "options", "warned"),
    [(0o644, (), True), (0o660, ("--link",), True), (0o600, (), False), (0o644, ("-o", "name"), False)],
)
def test_a_file_of_the_shell_that_others_may_read_is_named(
    environment: dict[str, str], tmp_path: Path, mode: int, options: tuple[str, ...], *, warned: bool
) -> None:
    file = tmp_path / "web 1.sh"
    file.touch()
    file.chmod(mode)
    with file.open("w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "skyctl", *INVITE, *options],
            env=clean_environment() | environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    word = f"warning: {file} has mode {mode:04o}, so others can make a host of theirs the worker: chmod 600 '{file}'; "
    assert done.returncode == 0
    assert done.stderr == (f"{word}--file FILE writes it for you alone\n" if warned else "")


def test_on_a_terminal_it_is_said_that_who_sees_it_can_use_it(environment: dict[str, str]) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "skyctl", *INVITE, "--link"],
        env=clean_environment() | environment,
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(slave)
    assert process.communicate(timeout=PATIENCE_SECONDS)[1] == (
        "note: who sees this can make a host of theirs the worker; --file FILE writes it for you alone\n"
    )
    os.close(master)
