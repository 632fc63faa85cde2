"""The install script where folders cannot be used, by real mounts."""

import os
from pathlib import Path

import pytest

from tests.installer.test_script import SCRIPT
from tests.support.scratch_host import ScratchHost, need_scratch_host

MOUNTS = {
    "read-only": ("ro", "Read-only file system"),
    "full": ("size=4k,nr_inodes=2", "No space left on device"),
    "no more files": ("nr_inodes=1", "No space left on device"),
    "noexec": ("noexec", "Permission denied"),
}
WRITTEN = ("opt", "etc/skypanel-worker", "etc/systemd/system", "usr/local/bin", "var/log", "var/lib")
RUN_FROM = ("opt", "usr/local/bin")
NEEDED_BY_PACKAGES = ("usr/lib", "var/cache")


@pytest.fixture
def host(tmp_path: Path) -> ScratchHost:
    """A host that has all that it needs, and whose folders can be mounts."""
    need_scratch_host()
    if os.geteuid():
        pytest.skip("needs root, to mount")
    host = ScratchHost(tmp_path / "host")
    host.add_python()
    host.add_docker()
    for folder in (*WRITTEN, *NEEDED_BY_PACKAGES):
        (host.root / folder).mkdir(parents=True, exist_ok=True)
    (host.root / "etc/skypanel-worker/somebodys").touch()  # an empty one would go
    return host


def mounted(host: ScratchHost, folder: str, options: str) -> tuple[str, ...]:
    mount = f'mount -t tmpfs -o {options} tmpfs "{host.root / folder}" && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", mount, "sh")


@pytest.mark.parametrize(
    ("folder", "trouble"),
    [(folder, trouble) for folder in WRITTEN for trouble in MOUNTS if trouble != "noexec" or folder in RUN_FROM],
)
def test_a_folder_that_cannot_be_used_is_said_before_anything_is_changed(
    host: ScratchHost, folder: str, trouble: str
) -> None:
    options, says = MOUNTS[trouble]
    before = host.files()
    done = host.install(SCRIPT, inside=mounted(host, folder, options))
    assert (done.returncode, host.files()) == (19, before), done.stderr
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith(f"error W19: /{folder}")
    assert error.endswith(says)
    assert hint.startswith(f"hint: see: findmnt --target /{folder}")


@pytest.mark.parametrize("folder", NEEDED_BY_PACKAGES)
def test_what_packages_are_written_to_is_tried_only_where_some_are_missing(host: ScratchHost, folder: str) -> None:
    inside = mounted(host, folder, "ro")
    assert host.install(SCRIPT, "--dry-run", inside=inside).returncode == 0
    (host.root / "usr/bin/python3").unlink()
    assert host.install(SCRIPT, "--dry-run", inside=inside).returncode == 19


def test_what_nothing_is_run_from_may_be_noexec(host: ScratchHost) -> None:
    before = host.files()
    done = host.install(SCRIPT, "--dry-run", inside=mounted(host, "var/log", "noexec"))
    assert (done.returncode, host.files()) == (0, before), done.stderr
    assert "ok: folders: " in done.stderr
