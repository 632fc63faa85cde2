"""A host that is a folder: a static busybox under chroot, and stand-ins for the programs that would change a real
system.

Each stand-in notes how it was called. What they do is the least that the install script needs to go on.
"""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.helpers import PATIENCE_SECONDS

BUSYBOX = Path("/bin/busybox")
# It has Docker and Python to install, and for the release whose python3 is too old python3.9 besides. What it would do
# is in /would.
MANAGER = """
case "$*" in
  *--simulate* | *--assumeno* | *--dry-run*) busybox cat /would 2>/dev/null; exit 0 ;;
  *docker* | *moby*) busybox touch /usr/bin/dockerd && busybox chmod 755 /usr/bin/dockerd ;;
  *python3.9*) busybox cp /programs/python /usr/bin/python3.9 ;;
  *python3*) busybox cp /programs/python /usr/bin/python3 ;;
esac
"""
# The manager's answer is in /answer; with which status it ends, and what it then says, in /curl-status and /curl-says.
CURL = """
if [ -e /curl-status ]; then
  [ -e /curl-says ] && busybox cat /curl-says >&2
  exit "$(busybox cat /curl-status)"
fi
busybox cat /answer
"""
NOW = 1_800_000_000
# It makes environments that hold itself. What it is given on stdin it keeps, as the engine would get it.
PYTHON = """
case "$*" in
  *"sys.version_info"*) ! busybox grep -qs "${0##*/}" /too-old ;;
  *"-m venv"*) busybox mkdir -p "$4/bin" && busybox cp /programs/python "$4/bin/python" ;;
  *"/swarm/join"*) [ -e /join-body ] || printf joined; cat >/join-body; [ ! -e /join-fails ] ;;
  *"/swarm/leave"*) [ ! -e /leave-fails ] ;;
  *sysconfig*) library=${0%/bin/python}/lib && busybox mkdir -p "$library" && echo "$library" ;;
esac
"""
SYSTEMCTL = """
case $1 in
  show) busybox cat /agent-says ;;
  *) [ ! -e "/$1-fails" ] ;;
esac
"""
APPLETS = (
    "base64",
    "cat",
    "chmod",
    "chown",
    "find",
    "grep",
    "gzip",
    "id",
    "mkdir",
    "mktemp",
    "mv",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tar",
    "touch",
    "tr",
    "uname",
)
# The static busybox prefers what it has built in to what stands in for it.
OVERRIDES = "".join(f'{name}() {{ /bin/{name} "$@"; }}\n' for name in ("date", "df", "sleep", "uname"))
CALLS = "/calls"
PATH = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
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
            "opt",
            "dev",
        ):
            (root / folder).mkdir(parents=True)
        (root / "var/run").symlink_to("/run")
        (root / "dev/null").touch()
        (root / "etc/os-release").write_text(f'NAME="Some Linux"\nID="{distribution}"\n')
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        shutil.copy(BUSYBOX, root / "bin/busybox")
        (root / "bin/sh").symlink_to("busybox")
        for applet in APPLETS:
            self.program(f"bin/{applet}", f'exec busybox {applet} "$@"')
        self.program("programs/python", PYTHON)
        self.program("usr/bin/systemctl", SYSTEMCTL)
        self.program("usr/bin/curl", CURL)
        self.program("usr/bin/flock", "[ ! -e /flock-fails ]")
        self.program("bin/date", f'case $* in +%s) echo {NOW} ;; *) echo "some day" ;; esac')
        self.program("bin/sleep", "")
        self.disk(free=9_999_999)
        for lister in ("dpkg-query", "rpm", "apk-info"):
            self.program(
                f"usr/bin/{lister}", "echo 'installed base'; [ ! -e /usr/bin/python3 ] || echo 'installed python3'"
            )
        self.program("usr/bin/dpkg", "")
        self.answer()
        (root / "agent-says").write_text("StatusText=accepted manager=x failures=0\n")
        for manager in managers:
            self.program(f"usr/bin/{manager}", MANAGER)

    def program(self, path: str, body: str) -> None:
        """Put a stand-in that notes its call and then does what `body` says."""
        program = self.root / path
        program.write_text(NOTE + body)
        program.chmod(0o755)

    def answer(self, state: str = "good", *, clock: int = NOW) -> None:
        """Let the manager answer this of the invitation, and of the time."""
        (self.root / "answer").write_text(f"time {clock}\ninvitation {state}\n")

    def disk(self, *, free: int) -> None:
        """Let so many KiB be free."""
        head = "Filesystem 1024-blocks Used Available Capacity Mounted on"
        self.program("bin/df", f"echo {head}; echo '/dev/x 9999999 1 {free} 1% /'")

    def become(self, distribution: str, manager: str) -> None:
        """Let this host be of another distribution."""
        (self.root / "etc/os-release").write_text(f'NAME="Some Linux"\nID="{distribution}"\n')
        self.program(f"usr/bin/{manager}", MANAGER)

    def add_python(self) -> None:
        """Let this host have Python."""
        shutil.copy(self.root / "programs/python", self.root / "usr/bin/python3")

    def add_docker(self) -> None:
        """Let this host have an engine that runs."""
        os.mknod(self.root / "run/docker.sock", stat.S_IFSOCK | 0o600)

    def install(self, script: str, *arguments: str, inside: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run the script as this host's root. `inside`: what runs the shell."""
        command = [*inside, *self._shell, "-s", "--", *arguments]
        return subprocess.run(
            command, input=OVERRIDES + script, env=PATH, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )

    def running(self, script: str) -> "subprocess.Popen[str]":
        """The same, while it runs."""
        (self.root / "script").write_text(OVERRIDES + script)
        return subprocess.Popen([*self._shell, "/script"], env=PATH, stderr=subprocess.PIPE, text=True)

    def changes(self) -> list[str]:
        """The same, but for the calls of package managers that only ask."""
        asking = ("--simulate", "--assumeno", "--dry-run", "--version")
        return [call for call in self.calls() if not any(word in call for word in asking)]

    @property
    def _shell(self) -> list[str]:
        enter = ["chroot"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot"]
        return [*enter, str(self.root), "/bin/sh"]

    def calls(self) -> list[str]:
        """How the stand-ins were called since this was last asked."""
        calls = self.root / CALLS.lstrip("/")
        notes = calls.read_text().split("\0") if calls.exists() else []
        calls.unlink(missing_ok=True)
        return notes

    def files(self) -> dict[str, tuple[int, int, int]]:
        """Every file that the stand-ins leave alone: its inode, its mode, and when it was last written."""
        found = {str(path.relative_to(self.root)): path.lstat() for path in self.root.rglob("*")}
        lock = "run/skypanel-worker-install"
        for name in ("calls", "join-body", "dev/null", "run", lock, f"{lock}/holder"):
            found.pop(name, None)
        return {
            # when a folder was written to says no more than which files are there
            name: (state.st_ino, state.st_mode, 0 if stat.S_ISDIR(state.st_mode) else state.st_mtime_ns)
            for name, state in found.items()
        }


def need_scratch_host() -> None:
    """Skip, saying what is missing, where there can be no scratch host."""
    if not BUSYBOX.exists():
        pytest.skip("needs /bin/busybox, linked statically (Debian: busybox-static)")
    if os.geteuid() and subprocess.run(["unshare", "--map-root-user", "true"], capture_output=True).returncode:
        pytest.skip("needs root, or user namespaces that are open to everyone")
