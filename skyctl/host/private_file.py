"""A file that holds a secret: only its owner reads it, and it is there whole or not at all."""

import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from skyctl.domain.errors import Refused
from skyctl.domain.text import quoted


@contextmanager
def opened(option: str, path: Path) -> Iterator[IO[str]]:
    """Give a stream whose text is the file's once the block has ended: mode 0600, in place of a file of this user.

    `option` is how the path was given. Raises Refused: before the block where nothing can be written there, or where
    what is there already is no file of this user's, or could be exchanged; after it where the disk is full.
    """
    _refuse_others(option, path)
    half, text = path.with_name(f".{path.name}.{secrets.token_hex(4)}"), io.StringIO()
    try:
        number = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(option, path, error) from error
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            yield text
            try:
                file.write(text.getvalue())
                file.flush()
                os.fsync(number)
                half.replace(path)
            except OSError as error:
                raise _unwritable(option, path, error) from error
    except BaseException:
        with suppress(OSError):
            half.unlink()
        raise


def _refuse_others(option: str, path: Path) -> None:
    """Raise Refused where there is something else than a file of this user, or could be."""
    if not path.parent.is_dir():
        raise Refused(f"{option}: there is no folder {path.parent}", f"make it: mkdir -p {quoted(path.parent)}")
    folder = path.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise Refused(
            f"{option}: everybody may write in {path.parent}, and so put another file in its place",
            f"name a file elsewhere, or: chmod o-w {quoted(path.parent)}",
        )
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(option, path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise Refused(f"{option}: {path} is a folder", "name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{option}: {path} is a link, or no regular file", "name a file, or leave the option out")
    if found.st_uid != os.geteuid():
        raise Refused(f"{option}: {path} belongs to user {found.st_uid}, who could read it", "name another file")


def _unwritable(option: str, path: Path, error: OSError) -> Refused:
    return Refused(
        f"{option}: {path} cannot be written: {error.strerror}", "name a file where you may write, and there is room"
    )
