"""The data folder: how it is made, and the one `skyctl up` that may run in it."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO

from skyctl.domain.errors import AlreadyRunning, ValidationError

LOCK = "up.lock"
ADDRESS = "API on "


def of_monitor(folder: Path) -> Path:
    """The data folder of the services' monitor, where serve, whose folder this is, runs as another user."""
    return folder.with_name(f"{folder.name}-monitor")


def prepare(folder: Path, *, like: Path | None = None) -> None:
    """Make the folder where it is missing, owned as another one is. Raises ValidationError where this user cannot write
    in it.

    What root makes lets every user through, whatever the umask, as the embedded PostgreSQL needs it.
    """
    try:
        missing = list(takewhile(lambda ancestor: not ancestor.is_dir(), (folder, *folder.parents)))
        for ancestor in reversed(missing):
            ancestor.mkdir(mode=0o755, exist_ok=True)
            if os.geteuid() == 0:
                ancestor.chmod(0o755)
        if like and os.geteuid() == 0:
            owner = like.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise unusable(folder, error) from error


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


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a file that only its owner reads, in one step: whole or not at all. Without `replace` an existing file
    stays.

    What root writes belongs to the owner of the folder: services that run as a user of their own read what root
    prepared.
    """
    half = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace:
            half.replace(path)
        else:
            path.hardlink_to(half)
    except FileExistsError:
        pass
    finally:
        half.unlink(missing_ok=True)


def unusable(folder: Path, error: OSError) -> ValidationError:
    """The error for a folder in which something could not be made or opened."""
    return ValidationError(
        f"SKYCTL_DATA_DIR: {str(folder)!r} cannot be used: {error.strerror}",
        "set it to a folder with room, where this user may write",
    )


@contextmanager
def only_up(folder: Path, url: str) -> Iterator[None]:
    """Be the one `skyctl up` of the folder, and announce where the API is. Raises AlreadyRunning."""
    with (folder / LOCK).open("a+") as lock:
        if not _take(lock):
            lock.seek(0)
            raise AlreadyRunning(
                f"skyctl up runs already: {lock.read().strip()}", "use it from here, or stop it there with Ctrl-C"
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, {ADDRESS}{url}\n")
        lock.flush()
        yield
        lock.truncate(0)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one who changes the folder's files; others wait."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def address_of_up(folder: Path) -> str | None:
    """The URL at which the `skyctl up` of the folder serves the API; None where none runs."""
    try:
        with (folder / LOCK).open(encoding="utf-8", errors="replace") as lock:
            nobody_runs = _flock(lock, fcntl.LOCK_SH)
            return None if nobody_runs else lock.read().rpartition(ADDRESS)[2].strip() or None
    except OSError:
        return None


def _take(lock: IO[str]) -> bool:
    """Take the lock unless an `up` holds it; who only asks for the address shares it for an instant."""
    while not _flock(lock, fcntl.LOCK_EX):
        if not _flock(lock, fcntl.LOCK_SH):
            return False
    return True


def _flock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
