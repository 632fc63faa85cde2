"""A host that is a folder: a static busybox under chroot, and stand-ins for the programs that would change a real system.

Each stand-in notes how it was called. What they do is the least that the install script needs to go on.
"""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

BUSYBOX = Path("/bin/busybox")
# It has Python to install, and for the release whose python3 is too old python3.9 besides.
MANAGER = """
case "$*" in
  *python3.9*) busybox cp /programs/python /usr/bin/python3.9 ;;
  *python3*) busybox cp /programs/python /usr/bin/python3 ;;
esac
"""
# It makes environments that hold itself. What it is given on stdin it keeps, as the engine would get it.
PYTHON = """
case "$*" in
  *"sys.version_info"*) ! busybox grep -qs "${0##*/}" /too-old ;;
  *"-m venv"*) busybox mkdir -p "$3/bin" && busybox cp /programs/python "$3/bin/python" ;;
  *"/swarm/join"*) cat >/join-body; [ ! -e /join-fails ] ;;
  *"hashlib"*) cat >/dev/null ;;
esac
"""
SYSTEMCTL = '[ ! -e "/$1-fails" ]'
APPLETS = ("cat", "chmod", "id", "mkdir", "mktemp", "mv", "rm", "sed", "tail", "touch", "tr")
CALLS = "/calls"
NOTE = f"#!/bin/sh\nprintf '%s\\0' \"${{0##*/}} $*\" >>{CALLS}\n"


class ScratchHost:
    """A host with systemd and `managers` for packages; without Python and without Docker, unless they are added."""

    def __init__(self, root: Path, managers: tuple[str, ...] = ("apt-get",), distribution: str = "debian") -> None:
        self.root = root
        for folder in (
            "bin",
            "usr/bin",
            "programs",
            "etc/systemd/system",
            "run/systemd/system",
            "var/log",
            "tmp",
            "dev",
        ):
            (root / folder).mkdir(parents=True)
        (root / "var/run").symlink_to("/run")
        (root / "dev/null").touch()
        (root / "etc/os-release").write_text(f'NAME="Some Linux"\nID="{distribution}"\n')
        shutil.copy(BUSYBOX, root / "bin/busybox")
        (root / "bin/sh").symlink_to("busybox")
        for applet in APPLETS:
            self.program(f"bin/{applet}", f'exec busybox {applet} "$@"')
        self.program("programs/python", PYTHON)
        self.program("usr/bin/systemctl", SYSTEMCTL)
        for manager in managers:
            self.program(f"usr/bin/{manager}", MANAGER)

    def program(self, path: str, body: str) -> None:
        """Put a stand-in that notes its call and then does what `body` says."""
        program = self.root / path
        program.write_text(NOTE + body)
        program.chmod(0o755)

    def add_python(self) -> None:
        """Let this host have Python."""
        shutil.copy(self.root / "programs/python", self.root / "usr/bin/python3")

    def add_docker(self) -> None:
        """Let this host have an engine that runs."""
        os.mknod(self.root / "run/docker.sock", stat.S_IFSOCK | 0o600)

    def install(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run the script as this host's root."""
        enter = ["chroot"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot"]
        command = [*enter, str(self.root), "/bin/sh", "-s"]
        environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        return subprocess.run(command, input=script, env=environment, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[str]:
        """How the stand-ins were called since this was last asked."""
        calls = self.root / CALLS.lstrip("/")
        notes = calls.read_text().split("\0") if calls.exists() else []
        calls.unlink(missing_ok=True)
        return notes

    def files(self) -> dict[str, tuple[int, int, int]]:
        """Every file that the stand-ins leave alone: its inode, its mode, and when it was last written."""
        found = {str(path.relative_to(self.root)): path.lstat() for path in self.root.rglob("*")}
        for name in ("calls", "join-body", "dev/null"):
            found.pop(name, None)
        return {name: (state.st_ino, state.st_mode, state.st_mtime_ns) for name, state in found.items()}


def need_scratch_host() -> None:
    """Skip, saying what is missing, where there can be no scratch host."""
    if not BUSYBOX.exists():
        pytest.skip("needs /bin/busybox, linked statically (Debian: busybox-static)")
    if os.geteuid() and subprocess.run(["unshare", "--map-root-user", "true"], capture_output=True).returncode:
        pytest.skip("needs root, or user namespaces that are open to everyone")
