"""How full the file systems are that the engine keeps its data on."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

CONTAINERD_ROOT = "/var/lib/containerd"
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
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
    folder: PurePosixPath
    kind: str


class Disks:
    """The file systems of the engine's data, looked at in a thread of its own, which a dead one may hold for ever.

    Where one of them cannot be measured, what was known last stands for five minutes; from then on, and where nothing
    was ever known, it counts as full: nothing more is put onto such a host, and it is not taken for lost.
    """

    def __init__(self, known_seconds: float = KNOWN_SECONDS) -> None:
        self._known_seconds = known_seconds
        self._thread: threading.Thread | None = None
        self._folders: tuple[str, ...] = ()
        self._found: list[Disk] | OSError | ValueError = []
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

    def _look(self, folders: Sequence[str]) -> str:
        """Measure, for a bounded time; returns why that failed. An earlier look that still hangs is not waited for."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._measure, args=(folders,), name="disks", daemon=True)
            self._thread.start()
            self._thread.join(ANSWER_SECONDS)
        if self._thread.is_alive():
            return f"no answer about {' and '.join(folders)}"
        if not isinstance(self._found, list):
            return f"{type(self._found).__name__}: {self._found}"
        self._last, self._last_at = self._found, time.monotonic()
        return ""

    def _measure(self, folders: Sequence[str]) -> None:
        try:
            self._found = measure(folders)
        except (OSError, ValueError) as error:
            self._found = error

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
        text = Path(CONTAINERD_CONFIG).read_text("utf-8")
    except (OSError, ValueError):
        return CONTAINERD_ROOT
    named = re.search(r"""^\s*root\s*=\s*["'](/.*?)["']""", re.split(r"(?m)^\s*\[", text)[0], re.MULTILINE)
    return named[1] if named else CONTAINERD_ROOT


def measure(folders: Sequence[str]) -> list[Disk]:
    """The file systems of these folders, and those that are mounted on a folder right within one.

    A folder that is not there, the engine being in a container or a machine of its own, stands for the nearest one
    above that is. May take for ever. Raises OSError for one of the folders that cannot be measured; what is mounted
    within them counts where it can be.
    """
    mounts = read_mounts(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")).values()
    paths = [_nearest(PurePosixPath(os.path.realpath(folder))) for folder in folders]
    parents = set(paths) - {PurePosixPath("/")}
    within = {mount.folder for mount in mounts if mount.folder.parent in parents and mount.kind not in PASSING}
    disks = [_disk_of(path, mounts) for path in paths]
    return disks + list(filter(None, (_inner_disk(path, mounts) for path in within.difference(paths))))


def _nearest(folder: PurePosixPath) -> PurePosixPath:
    """The folder, or the nearest one above it that is there."""
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        log.debug("action=disk_out_of_sight path=%s", folder)
        return _nearest(folder.parent)
    except OSError:  # it is there; who measures it says so
        pass
    return folder


def read_mounts(table: str) -> dict[PurePosixPath, Mount]:
    """Read proc_pid_mountinfo(5): for each folder what was mounted on it last, and so can be seen there."""
    mounts = {}
    for line in table.splitlines():
        fields, _, tail = line.partition(" - ")
        device, _, folder = fields.split(" ")[2:5]
        plain = ESCAPED.sub(lambda match: chr(int(match[1], 8)), folder)
        path = PurePosixPath(plain)
        mounts[path] = Mount(device, path, tail.split(" ")[0])
    return mounts


def _disk_of(folder: PurePosixPath, mounts: Collection[Mount]) -> Disk:
    """The file system of a folder, by another place where the same one can be seen if the folder may not be looked at.

    Raises OSError.
    """
    try:
        return _disk(folder)
    except PermissionError:
        for found in filter(None, map(_seen, _places(folder, mounts))):
            return found
        raise


def _inner_disk(folder: PurePosixPath, mounts: Collection[Mount]) -> Disk | None:
    try:
        return _disk_of(folder, mounts)
    except OSError as error:
        log.debug("action=disk_unseen path=%s reason=%r", folder, str(error))
        return None


def _places(folder: PurePosixPath, mounts: Collection[Mount]) -> Iterator[PurePosixPath]:
    """Where the file system of a folder can be seen besides: at its parents in the same mount, and at other mounts."""
    above = [folder, *folder.parents]
    own = max((mount for mount in mounts if mount.folder in above), key=lambda mount: len(mount.folder.parts))
    yield from above[1 : above.index(own.folder) + 1]
    yield from (other.folder for other in mounts if other.device == own.device)


def _seen(folder: PurePosixPath) -> Disk | None:
    try:
        return _disk(folder)
    except OSError:
        return None


def _disk(folder: PurePosixPath) -> Disk:
    usage = os.statvfs(folder)
    used = (_used(usage.f_blocks, usage.f_bfree, usage.f_bavail), _used(usage.f_files, usage.f_ffree, usage.f_favail))
    return Disk(usage.f_blocks * usage.f_frsize, round(max(used), 1))


def _used(total: int, free: int, available: int) -> float:
    """The percentage that is used of what those who are not root may use; 0 where there is no such limit."""
    used = total - free
    return 100.0 * used / (used + available) if used + available > 0 else 0.0
