"""The data folder: how it is made, and the one `skyctl up` that may run in it."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skyctl.domain.errors import AlreadyRunning, SkyctlError, ValidationError
from skyctl.host import folders, locks, owners
from skyctl.host.folders import Folder

LOCK = "up.lock"
CHANGES = "changes.lock"
ADDRESS = "API on "
HALF = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")  # how a file is called until it is whole


def of_monitor(folder: Path) -> Path:
    """The data folder of the services' monitor, where serve, whose folder this is, runs as another user."""
    return folder.with_name(f"{folder.name}-monitor")


def apart_from(folder: Path) -> Path | None:
    """The monitor's own data folder beside this one; None where there is none, or somebody else than root and this user
    could have made it."""
    try:
        monitors = of_monitor(folder.absolute())
        where = monitors.parent.stat()
        is_safe = where.st_uid in (0, os.geteuid()) and not where.st_mode & 0o022
        return monitors if is_safe and monitors.is_dir() else None
    except (OSError, ValueError):  # no name, one that is too long, a folder that may not be entered
        return None


def prepare(folder: Path) -> None:
    """Make the folder where it is missing. Raises ValidationError where this user cannot write in it, Refused where
    others could put another in its place.

    What root makes lets every user through, whatever the umask, as the embedded PostgreSQL needs it.
    """
    with opened(folder, make=True):
        pass


@contextmanager
def opened(folder: Path, *, make: bool = False) -> Iterator[Folder]:
    """The open folder, for the block; with `make` as `prepare` leaves it. Raises what `prepare` does."""
    try:
        found = folders.open_folder(folder, make=make)
    except OSError as error:
        raise unusable(folder, error) from error
    with found:
        if make and not os.access(".", os.W_OK | os.X_OK, dir_fd=found.number):
            raise unusable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        yield found


def check(folder: Path) -> bool:
    """Tell whether the folder is there; make nothing. Raises ValidationError where `prepare` would."""
    try:
        nearest = next(ancestor for ancestor in (folder, *folder.parents) if ancestor.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise unusable(folder, error) from error
    return nearest == folder


def closed_to_us(folder: Path) -> Path | None:
    """What this user may not enter of a folder that is there, or of the way to it; None where nothing is closed."""
    for part in (*reversed(folder.absolute().parents), folder):
        if not os.access(part, os.X_OK, effective_ids=True):
            return part if part.exists() else None
    return None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, in one step: whole or not at all. Raises OSError, Refused.

    What root writes belongs to the owner of the folder: services that run as a user of their own read what root
    prepared.
    """
    with folders.open_folder(path.parent) as folder:
        folder.write(path.name, text)


def sweep(path: Path) -> None:
    """Remove what killed processes left half written in a folder, as far as this user may."""
    with suppress(OSError, SkyctlError), folders.open_folder(path) as folder:
        for name in [path.name for path in folders.link(folder.number).iterdir() if HALF.fullmatch(path.name)]:
            with suppress(OSError, SkyctlError), folder.opened(name) as half:
                if os.fstat(half.fileno()).st_size and locks.taken(half, fcntl.LOCK_EX):
                    folder.remove(name)


def read_private(path: Path) -> bytes:
    """What such a file holds. Raises OSError, Refused."""
    with folders.open_folder(path.parent) as folder:
        return folder.read(path.name)


def unusable(folder: Path, error: OSError) -> ValidationError:
    """The error for a folder in which something could not be made or opened."""
    if isinstance(error, PermissionError):
        whose, remedy = owners.kept_out(folder)
        return ValidationError(
            f"SKYCTL_DATA_DIR: {str(folder)!r} cannot be used: {error.strerror}: {whose}",
            f"{remedy}; or set it to a folder of your own",
        )
    return ValidationError(
        f"SKYCTL_DATA_DIR: {str(folder)!r} cannot be used: {error.strerror}",
        "set it to a folder with room, where this user may write",
    )


@contextmanager
def only_up(folder: Path, url: str) -> Iterator[None]:
    """Be the one `skyctl up` of the folder, and announce where the API is. Raises AlreadyRunning."""
    with opened(folder) as top, top.opened(LOCK, make=True) as lock:
        while not locks.taken(lock, fcntl.LOCK_EX):
            if not locks.taken(lock, fcntl.LOCK_SH):  # who only asks for the address shares it for an instant
                raise AlreadyRunning(
                    f"skyctl up runs already: {lock.read().decode(errors='replace').strip()}",
                    "use it from here, or stop it there with Ctrl-C",
                )
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, {ADDRESS}{url}\n".encode())
        lock.flush()
        yield
        lock.truncate(0)


@contextmanager
def alone(folder: Folder) -> Iterator[None]:
    """Be the only one who changes the folder's files; others wait."""
    with folder.opened(CHANGES, make=True) as lock:
        locks.wait_for(lock, folder.path / CHANGES)
        yield


def address_of_up(folder: Path) -> str | None:
    """The URL at which the `skyctl up` of the folder serves the API, as it says itself; None where none runs, or one of
    somebody else than root and this user."""
    try:
        with folders.open_folder(folder) as top, top.opened(LOCK) as lock:
            if {top.status.st_uid, os.fstat(lock.fileno()).st_uid} - {0, os.geteuid()}:
                return None
            if locks.taken(lock, fcntl.LOCK_SH):
                return None
            return lock.read().decode(errors="replace").rpartition(ADDRESS)[2].strip() or None
    except (OSError, SkyctlError):
        return None
