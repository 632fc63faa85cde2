"""How full the file systems are that the engine keeps its data on."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, NoReturn

log = logging.getLogger(__name__)

CONTAINERD_ROOT = "/var/lib/containerd"
CONTAINERD_CONFIG = Path("/etc/containerd/config.toml")
MOUNTS = Path("/proc/self/mountinfo")
SNAPSHOTTER = "io.containerd.snapshotter"
# The file systems that the engine itself mounts among its data; nothing lies on them.
PASSING = ("overlay", "nsfs", "proc", "sysfs", "cgroup", "cgroup2")
ESCAPED = re.compile(r"\\([0-7]{3})")
ANSWER_SECONDS = 2.0
KNOWN_SECONDS = 300.0
# Another file system's size is reported once it is fuller by so much than the one that was reported so far.
MARGIN_PERCENT = 5.0


class Disk(NamedTuple):
    """A file system: its size in bytes, and how full it is for those who are not root, by bytes or by files, whichever
    is fuller."""

    size: int
    percent: float


class Mount(NamedTuple):
    """A line of the kernel's table of mounts."""

    device: str
    folder: str
    kind: str


class Disks:
    """The file systems of the engine's data, looked at in a thread of its own, which a dead one may hold for ever.

    Where one of them cannot be measured, what was known last stands for five minutes; from then on, and where nothing
    was ever known, it counts as full: nothing more is put onto such a host, and it is not taken for lost.
    """

    def __init__(self, known_seconds: float = KNOWN_SECONDS) -> None:
        self._known_seconds = known_seconds
        self._thread: threading.Thread | None = None
        self._asked: SimpleQueue[tuple[str, ...]] = SimpleQueue()
        self._answers: SimpleQueue[list[Disk] | OSError | ValueError] = SimpleQueue()
        self._is_asked = False
        self._folders: tuple[str, ...] = ()
        self._last: list[Disk] = []
        self._last_at = 0.0
        self._size = 0
        self._trouble = ""

    def read(self, folders: tuple[str, ...]) -> Disk:
        """How full the fullest is, and its size: 0 where none is known."""
        if folders != self._folders:
            self._folders, self._last = folders, []
        trouble = self._look(folders)
        self._say(trouble)
        if trouble and not (self._last and time.monotonic() - self._last_at <= self._known_seconds):
            return Disk(self._size, 100.0)
        fullest = max(self._last, key=lambda disk: disk.percent)
        reported = [disk.percent for disk in self._last if disk.size == self._size]
        if not reported or fullest.percent > max(reported) + MARGIN_PERCENT:
            self._size = fullest.size
        return Disk(self._size, fullest.percent)

    def _look(self, folders: tuple[str, ...]) -> str:
        """Measure, for a bounded time; returns why that failed. An earlier look that still hangs is not waited for."""
        try:
            if self._is_asked:
                self._answers.get_nowait()
            self._ask(folders)
            found = self._answers.get(timeout=ANSWER_SECONDS)
        except Empty:
            return f"no answer about {' and '.join(folders)}"
        self._is_asked = False
        if not isinstance(found, list):
            return f"{type(found).__name__}: {found}"
        self._last, self._last_at = found, time.monotonic()
        return ""

    def _ask(self, folders: tuple[str, ...]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._answer, name="disks", daemon=True)
            self._thread.start()
        self._is_asked = True
        self._asked.put(folders)

    def _answer(self) -> NoReturn:
        while True:
            self._answers.put(_outcome(self._asked.get()))

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning(
                "action=disk_unknown last_known=%s reason=%r hint='it counts as full after %d s'",
                max((disk.percent for disk in self._last), default="none"),
                trouble[:200],
                self._known_seconds if self._last else 0,
            )
        if self._trouble and not trouble:
            log.info("action=disk_known")
        self._trouble = trouble


def data_folders(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The folders of an engine's data, by its `GET /info`: its own, and containerd's where that keeps the images."""
    root = str(info.get("DockerRootDir") or "/")
    status = info.get("DriverStatus")
    if SNAPSHOTTER not in str(status if isinstance(status, list) else ""):
        return (root,)
    containerd = info.get("Containerd")
    address = str(containerd.get("Address") if isinstance(containerd, dict) else "")
    if re.match(r"(/var)?/run/docker/", address):  # the engine's own, which keeps its data below the engine's
        return (root,)
    return (root, _containerd_root())


def _containerd_root() -> str:
    """The folder that containerd is configured for; the key stands before the first table."""
    try:
        text = CONTAINERD_CONFIG.read_text("utf-8")
    except (OSError, ValueError):
        return CONTAINERD_ROOT
    named = re.search(r"""^\s*root\s*=\s*["'](/.*?)["']""", re.split(r"(?m)^\s*\[", text)[0], re.MULTILINE)
    return named[1] if named else CONTAINERD_ROOT


def _outcome(folders: tuple[str, ...]) -> list[Disk] | OSError | ValueError:
    try:
        return measure(folders)
    except (OSError, ValueError) as error:
        return error


def measure(folders: Sequence[str]) -> list[Disk]:
    """The file systems of these folders, and those that are mounted on a folder right within one.

    A folder that is not there, the engine being in a container or a machine of its own, stands for the nearest one
    above that is, without what else is mounted in that. May take for ever. Raises OSError for one of the folders that
    cannot be measured; what is mounted within them counts where it can be.
    """
    wanted = [os.path.realpath(folder) for folder in folders]
    paths = [_nearest(folder) for folder in wanted]
    disks = [_disk_of(path) for path in paths]
    parents = set(paths).intersection(wanted) - {"/"}
    if parents:
        mounted = [mount for mount in read_mounts().values() if mount.kind not in PASSING]
        within = {mount.folder for mount in mounted if _above(mount.folder) in parents}
        disks += filter(None, (_seen(path, _disk_of) for path in within.difference(paths)))
    return disks


def _nearest(folder: str) -> str:
    """The folder, or the nearest one above it that is there."""
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        log.debug("action=disk_out_of_sight path=%s", folder)
        return _nearest(_above(folder))
    except OSError:  # it is there; who measures it says so
        pass
    return folder


def read_mounts() -> dict[str, Mount]:
    """Read proc_pid_mountinfo(5): for each folder what was mounted on it last, and so can be seen there."""
    mounts = {}
    with MOUNTS.open(encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, _, tail = line.partition(" - ")
            device, _, folder = fields.split(" ", 5)[2:5]
            path = ESCAPED.sub(lambda match: chr(int(match[1], 8)), folder)
            mounts[path] = Mount(device, path, tail.partition(" ")[0])
    return mounts


def _above(folder: str) -> str:
    return folder.rpartition("/")[0] or "/"


def _disk_of(folder: str) -> Disk:
    """The file system of a folder, by another place where the same one can be seen if the folder may not be looked at.

    Raises OSError.
    """
    try:
        return _disk(folder)
    except PermissionError:
        for found in filter(None, (_seen(place, _disk) for place in _places(folder))):
            return found
        raise


def _places(folder: str) -> Iterator[str]:
    """Where the file system of a folder can be seen besides: at its parents in the same mount, and at other mounts."""
    mounts, above = read_mounts(), folder
    while above not in mounts:
        above = _above(above)
        yield above
    yield from (other.folder for other in mounts.values() if other.device == mounts[above].device)


def _seen(folder: str, look: Callable[[str], Disk]) -> Disk | None:
    try:
        return look(folder)
    except OSError as error:
        log.debug("action=disk_unseen path=%s reason=%r", folder, str(error))
        return None


def _disk(folder: str) -> Disk:
    usage = os.statvfs(folder)
    used = (_used(usage.f_blocks, usage.f_bfree, usage.f_bavail), _used(usage.f_files, usage.f_ffree, usage.f_favail))
    return Disk(usage.f_blocks * usage.f_frsize, round(max(used), 1))


def _used(total: int, free: int, available: int) -> float:
    """The percentage that is used of what those who are not root may use; 0 where there is no such limit."""
    used = total - free
    return 100.0 * used / (used + available) if used + available > 0 else 0.0
