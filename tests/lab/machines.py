"""The machines of the lab: a `Node` is a bare Docker engine, a `Host` a Debian that was booted with systemd."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.support.helpers import PATIENCE_SECONDS

from . import groups, images, network
from .commands import run

_RELEASE = os.environ.get("SKYLAB_ENGINE")  # of Debian, whose engine the nodes are given; else this machine's
# A node sees that release's tree with its own kernel's files and those of the machines, and its engine nothing else:
# in a mere chroot an engine fails to unpack images, since it has no mount of its own to make private.
_SHOW = """cd "$1"; shift; mount --bind -o ro . .; cd "$PWD"
for each in dev proc run sys tmp; do mount --rbind /$each $each; done
mount -t tmpfs tmpfs var/lib; mkdir .{0}; mount --rbind {0} .{0}; exec "$@"
"""
_PIVOT = ("unshare", "--mount", "sh", "-ec", 'pivot_root . mnt; umount --lazy /mnt; exec "$@"', "sh")


class Machine:
    """A machine with an address of its own. Its processes live in a pid namespace, so one kill ends them all at
    once."""

    _inside: Sequence[str]  # the command that runs another one on the machine; {pid} is its first process

    def __init__(self, lab: network.Network, name: str) -> None:
        self.name = name
        self.folder = network.MACHINES / name
        self.address = lab.wire(name)
        self.folder.mkdir()
        self._boot()

    def run(self, *argv: str, stdin: str | bytes = "", timeout_seconds: float = 60) -> str:
        """What the command writes to stdout on this machine. Raises CommandFailed."""
        return run(*self.command(*argv), stdin=stdin, timeout_seconds=timeout_seconds)

    def spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command on this machine; it gets SIGTERM when the process that is returned ends."""
        log = (self.folder / f"{Path(argv[0]).name}.log").open("wb")
        with log:
            return subprocess.Popen(self.command("setpriv", "--pdeathsig", "TERM", *argv), stdout=log, stderr=log)

    def command(self, *argv: str) -> list[str]:
        """The command that runs this one on the machine."""
        return [word.format(pid=self._leader) for word in self._inside] + list(argv)

    def freeze(self) -> None:
        """Stop every process where it is, as a machine without a processor to run on."""
        network.signal_all(self.name, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        network.signal_all(self.name, signal.SIGCONT)

    def cut(self) -> None:
        """Pull the network cable."""
        network.unplug(self.name)

    def heal(self) -> None:
        """Put the cable back."""
        network.plug(self.name)

    def kill(self) -> None:
        """Switch the power off: every process is gone at once."""
        if self._process.poll() is None:
            os.kill(self._leader, signal.SIGKILL)
            self._process.send_signal(signal.SIGCONT)  # where it is frozen, it would not see that end
        self._process.wait(PATIENCE_SECONDS)

    def power_on(self) -> None:
        """Boot it again after `kill`, with all that is on its disk."""
        self._boot()

    def remove(self) -> None:
        """Switch it off, and remove all that was there of it."""
        self.kill()
        network.remove(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _boot(self) -> None:
        log = self.folder / "log"
        with log.open("wb") as output, _readiness(self.folder / "ready", log):
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the tests, which then remove the machine
                env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "ready"), "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"},
            )
        pid = self._process.pid
        self._leader = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def _command(self) -> list[str]:
        raise NotImplementedError


class Node(Machine):
    """A Docker engine on the files of this very machine, but with its own /run; ready in about a second.

    `SKYLAB_ENGINE=trixie` gives it the engine and the client of that Debian release instead of this machine's; all
    else that is run on it is still this machine's.
    """

    _inside = ("nsenter", "--target", "{pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--")

    @property
    def engine(self) -> str:
        """Where its engine answers, from outside of the machine."""
        return f"unix://{self.folder}/docker.sock"

    def command(self, *argv: str) -> list[str]:
        client = ("chroot", str(images.engine(_RELEASE))) if _RELEASE and argv[0] == "docker" else ()
        return super().command(*client, *argv)

    def _command(self) -> list[str]:
        # Not `ip netns exec`: it mounts /sys anew, and the engine no longer finds the control groups.
        space = network.namespace(self.name)
        enter = ["nsenter", f"--net=/run/netns/{space}", "--"]
        isolate = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--mount-proc", "--fork", "--kill-child", "--"]
        prepare = 'hostname "$1" && mount -t tmpfs tmpfs /run && shift && exec "$@"'
        tree = [*("sh", "-ec", _SHOW.format(network.FOLDER), "sh"), str(images.engine(_RELEASE))] if _RELEASE else []
        options = [f"--data-root={self.folder}/data", f"--cgroup-parent=/{space}"]
        sockets = ["--host=unix:///run/docker.sock", f"--host={self.engine}"]
        engine = ["docker-init", "--", *(_PIVOT if _RELEASE else ()), "dockerd", *options, *sockets]
        return [*enter, *isolate, "sh", "-c", prepare, "sh", self.name, *tree, *engine]


class Host(Machine):
    """A booted Debian of its own, with systemd, journald and apt: `fresh` has neither Docker nor Python."""

    _inside = (
        *("nsenter", "--target", "{pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"),
        *("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"),
    )

    def __init__(self, lab: network.Network, name: str, *, fresh: bool) -> None:
        self._fresh = fresh
        super().__init__(lab, name)

    def _command(self) -> list[str]:
        root = self.folder / "root"
        self._fill(root)
        space = network.namespace(self.name)
        # Several hosts in one control group would take each other's processes for their own.
        join = 'for group in $1; do echo $$ >"$group/cgroup.procs"; done; shift; exec "$@"'
        return [
            *("sh", "-ec", join, "sh", " ".join(str(group) for group in groups.make(space))),
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={root}", "--notify-ready=yes", "--console=pipe"),
            *(f"--machine={space}", f"--hostname={self.name}", "--register=no", "--keep-unit", "--resolv-conf=off"),
            f"--network-namespace-path=/run/netns/{space}",
            *("--capability=all", "--system-call-filter=@keyring bpf"),  # an engine inside needs them
        ]

    def _fill(self, root: Path) -> None:
        """Make its disk: a machine like any other, that has not been booted."""
        run("cp", "--archive", str(images.fresh() if self._fresh else images.with_docker()), str(root))
        (root / "etc/hostname").write_text(f"{self.name}\n")
        (root / "etc/machine-id").write_text("")


class Copy(Host):
    """A host with a copy of another one's disk, but for the data of its engine."""

    def __init__(self, lab: network.Network, name: str, original: Host) -> None:
        self._original = original
        super().__init__(lab, name, fresh=False)

    def _fill(self, root: Path) -> None:
        run("cp", "--archive", "--one-file-system", str(self._original.folder / "root"), str(root))
        run("rm", "--recursive", "--force", str(root / "var/lib/docker"))


@contextmanager
def _readiness(path: Path, log: Path) -> Iterator[None]:
    """Leave only when a process that was started within has said READY=1 on its notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(PATIENCE_SECONDS)
        yield
        try:
            while b"READY=1" not in listener.recv(4096).split():
                pass
        except TimeoutError as error:
            raise TimeoutError(f"not ready after {PATIENCE_SECONDS} s: {log.read_text()[-2000:]}") from error
    path.unlink()
