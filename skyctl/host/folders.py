"""Folders in which another user may write: what root does there, it does by descriptors.

On the way to a folder nothing is followed that somebody else could have put there; in it no link is followed, and no
file taken that has a second name, since both may lead to a file of root's. What is made belongs to the folder's owner.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import IO, Self

from skyctl.domain.errors import Refused
from skyctl.domain.text import quoted

MOST_LINKS = 40  # as the kernel follows
DEEPEST = 64
LARGEST = 1 << 24
ATTEMPTS = 100
ANYBODY = -1  # no user has this number
FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR, errno.ENODEV)
MOVE_IT = "see who put it there and move it away; skyctl follows no link in its data folder"


class Folder:
    """An open folder."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)

    @property
    def status(self) -> os.stat_result:
        """Whose it is, and what its mode is."""
        return os.fstat(self.number)

    def has(self, name: str) -> bool:
        """Tell whether there is anything of this name, a link included."""
        try:
            os.stat(name, dir_fd=self.number, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def opened(self, name: str, *, make: bool = False) -> Iterator[IO[bytes]]:
        """A file, to read; with `make` to write as well, for its owner alone, made where it is missing.

        Raises OSError, and Refused where it is none that belongs here.
        """
        file = os.fdopen(self._made(name) if make else self._number(name, os.O_RDONLY), "r+b" if make else "rb")
        with file:
            if make and os.fstat(file.fileno()).st_mode & 0o077:  # as older versions made it
                os.fchmod(file.fileno(), 0o600)
            yield file

    def read(self, name: str, offset: int = 0) -> bytes:
        """What a file holds from there on. Raises OSError, Refused."""
        with self.opened(name) as file:
            file.seek(offset)
            return file.read(LARGEST)

    def write(self, name: str, text: str) -> None:
        """Write a file that only its owner reads, in one step: whole or not at all. Raises OSError."""
        half = f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
        number = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS, 0o600, dir_fd=self.number)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                fcntl.flock(number, fcntl.LOCK_EX)  # who takes the lock of one that holds something knows that we died
                self._hand_to_owner(number)
                file.write(text)
                file.flush()
                os.fsync(number)
            self.rename(half, name)
        except BaseException:
            self.remove(half)
            raise

    def folder(
        self, name: str, *, make: bool = False, mode: int = 0o755, owner: tuple[int, int] | None = None
    ) -> "Folder":
        """A folder within; with `make` it is made where it is missing, and root's own one is given to its owner: this
        one's, or another.

        Raises OSError, and Refused where it is none that belongs here.
        """
        made = make and self._make_folder(name, mode)
        try:
            child = Folder(self.path / name, os.open(name, FOLDER_FLAGS, dir_fd=self.number))
        except NotADirectoryError:
            raise Refused(f"{self.path / name} is a link, or no folder", MOVE_IT) from None
        if make and os.geteuid() == 0:
            wanted = owner or (self.status.st_uid, self.status.st_gid)
            found = child.status
            if found.st_uid not in (0, wanted[0]):
                child.__exit__()
                raise Refused(f"{child.path} belongs to {found.st_uid}, not to {wanted[0]}", MOVE_IT)
            if made:
                link(child.number).chmod(mode)
            if (found.st_uid, found.st_gid) != wanted:
                os.chown(link(child.number), *wanted)
        return child

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, as far as that is possible."""
        import shutil  # here, since every command imports this module and few remove a folder

        shutil.rmtree(name, ignore_errors=True, dir_fd=self.number)

    def remove(self, name: str) -> None:
        """Remove a file, where it is there. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.number)

    def rename(self, name: str, new: str) -> None:
        """Give something of this folder another name, in place of what has that. Raises OSError."""
        os.replace(name, new, src_dir_fd=self.number, dst_dir_fd=self.number)

    def _make_folder(self, name: str, mode: int) -> bool:
        try:
            os.mkdir(name, mode, dir_fd=self.number)
        except FileExistsError:
            return False
        return True

    def _made(self, name: str) -> int:
        for _ in range(ATTEMPTS):
            try:
                return self._number(name, os.O_RDWR)
            except FileNotFoundError:
                try:
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | FILE_FLAGS
                    number = os.open(name, flags, 0o600, dir_fd=self.number)
                except FileExistsError:
                    continue
                self._hand_to_owner(number)
                return number
        raise Refused(f"{self.path / name} comes and goes", MOVE_IT)

    def _number(self, name: str, flags: int) -> int:
        try:
            number = os.open(name, flags | FILE_FLAGS, dir_fd=self.number)
        except OSError as error:
            if error.errno in NO_FILE:
                raise Refused(f"{self.path / name} is a link, or no file", MOVE_IT) from None
            raise
        if reason := self._stranger(os.fstat(number)):
            os.close(number)
            raise Refused(f"{self.path / name} {reason}", MOVE_IT)
        return number

    def _stranger(self, file: os.stat_result) -> str:
        """Why root does not take this for a file of the folder; empty where it does, and for everybody else, whom
        nobody can lend more than they have."""
        if not stat.S_ISREG(file.st_mode):
            return "is no file"
        if os.geteuid() or (self.status.st_uid == 0 and not self.status.st_mode & 0o022):
            return ""
        if file.st_nlink > 1:
            return "has a second name elsewhere (a hard link)"
        owners = (0, self.status.st_uid)
        return "" if file.st_uid in owners else f"belongs to {file.st_uid}, not to the folder's owner"

    def _hand_to_owner(self, number: int) -> None:
        if os.geteuid() == 0:
            os.fchown(number, self.status.st_uid, self.status.st_gid)


def open_folder(path: Path, *, make: bool = False) -> Folder:
    """Open a folder; with `make`, what is missing of it is made, owned as what it is made in, and open to everybody who
    may enter that.

    Raises OSError, and Refused where others than root, this user and the folder's owner could put another in its
    place.
    """
    path = path.absolute()
    way = _Way(make)
    try:
        way.go(path)
        way.check(path)
    except BaseException:
        os.close(way.number)
        raise
    return Folder(path, way.number)


class _Way:
    """The walk from / to a folder, and who could have changed its direction."""

    def __init__(self, make: bool) -> None:
        self.number = os.open("/", FOLDER_FLAGS)
        self._make = make
        self._links = 0
        self._owners: dict[int, str] = {}
        self._settlers: set[int] = set()  # who have something on the way where everybody may make something

    def go(self, path: PurePath) -> None:
        """Go on, from / where the path begins there."""
        if path.is_absolute():
            self._replace(os.open("/", FOLDER_FLAGS))
        for name in path.parts[1:] if path.is_absolute() else path.parts:
            try:
                found = os.stat(name, dir_fd=self.number, follow_symlinks=False)
            except FileNotFoundError:
                found = None
            if found and stat.S_ISLNK(found.st_mode):
                self._follow(name, found)
            else:
                self._enter(name, make=self._make and not found)

    def check(self, path: Path) -> None:
        """Raise Refused where somebody else could have changed it."""
        here = os.fstat(self.number)
        if here.st_mode & stat.S_IWOTH:
            raise Refused(f"{path} is no safe folder: everybody may write in it", f"chmod o-w {quoted(path)}")
        trusted = {0, os.geteuid(), *({here.st_uid} - self._settlers)}
        for owner, why in self._owners.items():
            if owner not in trusted and (owner == ANYBODY or os.geteuid() == 0):
                raise Refused(
                    f"{path} is no safe folder: {why}", "use one below folders that only root may change, as /var/lib"
                )

    def _follow(self, name: str, link: os.stat_result) -> None:
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._note(name, link)
        self._owners[link.st_uid] = f"the link {name} on the way to it belongs to user {link.st_uid}"
        self.go(PurePath(os.readlink(name, dir_fd=self.number)))

    def _enter(self, name: str, *, make: bool) -> None:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=self.number)
        child = os.open(name, FOLDER_FLAGS, dir_fd=self.number)
        if make and os.geteuid() == 0:
            parent = os.fstat(self.number)
            link(child).chmod(0o755)  # whatever the umask is
            os.chown(link(child), parent.st_uid, parent.st_gid)
        if name != "..":
            self._note(name, os.fstat(child))
        self._replace(child)

    def _note(self, name: str, child: os.stat_result) -> None:
        """Note who may exchange the child: the owner of where it is, or whoever may write there."""
        here, where = os.fstat(self.number), str(link(self.number).readlink())
        self._owners[here.st_uid] = f"{where} belongs to user {here.st_uid}"
        if here.st_mode & stat.S_ISVTX:
            self._owners[child.st_uid] = f"{where.rstrip('/')}/{name} belongs to user {child.st_uid}"
            self._settlers |= {child.st_uid} if here.st_mode & stat.S_IWOTH else set()
        elif here.st_mode & stat.S_IWOTH:
            self._owners[ANYBODY] = f"everybody may write in {where}"
        elif here.st_mode & stat.S_IWGRP and here.st_gid and os.geteuid() == 0:
            self._owners[ANYBODY] = f"the group {here.st_gid} may write in {where}"

    def _replace(self, number: int) -> None:
        os.close(self.number)
        self.number = number


def strangers(path: Path, uid: int, keep: str) -> list[Path]:
    """Return what in a folder, or the folder itself, is not this user's: folders, and files of one name, without what
    lies at its top under a name that begins with `keep`. A folder that is not there is nobody's.

    Raises OSError, Refused.
    """
    try:
        with open_folder(path) as folder:
            return list(_strangers(folder, uid, keep, _mount(folder)))
    except FileNotFoundError:
        return [path]


def hand_over(path: Path, uid: int, gid: int, keep: str) -> None:
    """Give this user a folder with all that `strangers` names; it is made where it is missing. Raises OSError,
    Refused."""
    with open_folder(path, make=True) as folder:
        _hand_over(folder, uid, gid, keep, _mount(folder))


def _strangers(folder: Folder, uid: int, keep: str, mount: str, depth: int = 0) -> Iterator[Path]:
    if folder.status.st_uid != uid:
        yield folder.path
    for child in _children(folder, keep, mount, depth):
        if stat.S_ISDIR(child.status.st_mode):
            yield from _strangers(child, uid, "", mount, depth + 1)
        elif child.status.st_uid != uid:
            yield child.path


def _hand_over(folder: Folder, uid: int, gid: int, keep: str, mount: str, depth: int = 0) -> None:
    """While its files change hands a folder is root's, so that nobody can exchange one of them, or take away the second
    name by which a file was seen to be at home elsewhere."""
    mode = stat.S_IMODE(folder.status.st_mode)
    os.chown(link(folder.number), 0, 0)
    link(folder.number).chmod(mode & ~0o022)
    for child in _children(folder, keep, mount, depth):
        if stat.S_ISDIR(child.status.st_mode):
            _hand_over(child, uid, gid, "", mount, depth + 1)
        elif child.status.st_uid != uid:
            os.chown(link(child.number), uid, gid)
    os.chown(link(folder.number), uid, gid)
    link(folder.number).chmod(mode)


def _children(folder: Folder, keep: str, mount: str, depth: int) -> Iterator[Folder]:
    """The folders and the files of one name in a folder, of the same mount; a file is given as if it were a folder."""
    if depth > DEEPEST:
        raise Refused(f"{folder.path} is more than {DEEPEST} folders deep", "nothing of skyctl is: move it away")
    try:
        names = [child.name for child in link(folder.number).iterdir()]
    except PermissionError:
        return
    for name in names:
        if keep and name.startswith(keep):
            continue
        try:
            number = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.number)
        except FileNotFoundError:
            continue
        with Folder(folder.path / name, number) as child:
            found = child.status
            if _mount(child) == mount and (
                stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
            ):
                yield child


def _mount(folder: Folder) -> str:
    """The number of the mount by which a folder is reached: a file system may be mounted in several places."""
    lines = Path(f"/proc/self/fdinfo/{folder.number}").read_text(encoding="ascii").splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))


def link(number: int) -> Path:
    """The path of what is open, whatever its name is by now."""
    return Path(f"/proc/self/fd/{number}")
