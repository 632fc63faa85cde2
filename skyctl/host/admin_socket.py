"""The unix socket of `serve`, by which the administrators of this machine ask without a token: where it is, and how it
is listened at."""

import fcntl
import grp
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from skyctl.domain.errors import Refused, SkyctlError, ValidationError
from skyctl.host import data_dir, local_users, locks
from skyctl.host.folders import MOVE_IT, Folder
from skyctl.host.system_users import owner_of

NAME, LOCK = "serve.sock", ".lock"
DATA_OF_SERVICE, FOLDER_OF_SERVICE = Path("/var/lib/skyctl"), Path("/run/skyctl-serve")
LONGEST = 107  # bytes; the kernel takes no longer path of a socket
BACKLOG = 128
CONNECT_SECONDS = 10.0

log = logging.getLogger(__name__)


def path(data_folder: Path) -> Path:
    """Return where the socket is of the `serve` that works with this data folder, whoever asks.

    The services' own data folder lets nobody else in: their socket is where their unit has it (`RuntimeDirectory`).
    """
    return (FOLDER_OF_SERVICE if data_folder == DATA_OF_SERVICE else data_folder / "run") / NAME


def is_open(path: Path) -> bool:
    """Tell whether somebody listens at a unix socket, and this user may connect."""
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(CONNECT_SECONDS)
        try:
            tried.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def listening(data_folder: Path) -> Iterator[socket.socket | None]:
    """A socket that listens there for the block, and is removed at its end; None where that cannot be, which is said in
    one line of the log."""
    with ExitStack() as stack:
        listener, where = None, path(data_folder)
        try:
            listener = stack.enter_context(_listening(where))
        except SkyctlError as error:
            log.warning("action=no_socket path=%s reason=%s: %s", where, error.message, error.hint)
        except OSError as error:
            log.warning("action=no_socket path=%s reason=%s", where, error.strerror)
        yield listener


@contextmanager
def _listening(where: Path) -> Iterator[socket.socket]:
    """Raises ValidationError, OSError where the socket cannot be made, Refused where the place is another's."""
    if len(os.fsencode(where)) > LONGEST:
        raise ValidationError(
            f"the path of a socket has at most {LONGEST} bytes", "set SKYCTL_DATA_DIR to a folder with a shorter path"
        )
    with data_dir.opened(where.parent, make=True) as folder:
        if folder.status.st_uid != os.geteuid():  # who could put another socket in its place
            raise Refused(f"{where.parent} belongs to {owner_of(where.parent)}", "run serve as that user")
        with folder.opened(NAME + LOCK, make=True) as lock, socket.socket(socket.AF_UNIX) as listener:
            if not locks.taken(lock, fcntl.LOCK_EX):
                raise Refused(f"{locks.holder(lock)} listens there", "this one goes on without a socket")
            _remove_left(folder)
            listener.bind(str(where))
            try:
                _let_in(where)
                listener.listen(BACKLOG)  # before, nobody can connect
                yield listener
            finally:
                folder.remove(NAME)


def _remove_left(folder: Folder) -> None:
    """Remove what a killed `serve` has left, whose lock is free. Raises Refused where that is no socket."""
    try:
        left = os.stat(NAME, dir_fd=folder.number, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(left.st_mode):
        raise Refused(f"{folder.path / NAME} is no socket", MOVE_IT)
    folder.remove(NAME)


def _let_in(where: Path) -> None:
    """Open the socket to the group of administrators; where there is none, or this user may not give it away, to this
    user alone."""
    where.chmod(0o600)
    try:
        group = grp.getgrnam(local_users.GROUP).gr_gid
        if where.stat().st_gid != group:  # the service may not even ask to change it
            os.chown(where, -1, group)
    except (KeyError, OSError):
        return
    where.chmod(0o660)
