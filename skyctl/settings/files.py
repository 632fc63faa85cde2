"""The files that settings are read from: what may be one, and who else may read or change it."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from skyctl.domain.errors import ValidationError
from skyctl.domain.text import quoted
from skyctl.host import owners

LARGEST_FILE = 1 << 20
WHERE = "see --config and SKYCTL_CONFIG"


def read(path: Path) -> str:
    """Return the text of a settings file. Raises ValidationError where it is none: no waiting for a pipe, no reading of
    a device."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValidationError(f"the settings file {path} is no regular file", WHERE)
            content = file.read(LARGEST_FILE + 1)
    except PermissionError as error:
        whose, remedy = owners.kept_out(path)
        raise ValidationError(
            f"the settings file {path} cannot be read: {error.strerror}: {whose}", f"{remedy}; or {WHERE}"
        ) from error
    except OSError as error:
        raise ValidationError(f"the settings file {path} cannot be read: {error.strerror}", WHERE) from error
    if len(content) > LARGEST_FILE:
        raise ValidationError(f"the settings file {path} is larger than {LARGEST_FILE >> 20} MiB", WHERE)
    try:
        return content.decode()
    except UnicodeDecodeError:  # whose words show what stands there
        raise ValidationError(f"the settings file {path} is not UTF-8", "write it anew as UTF-8") from None


def refuse_open_secrets(path: Path, secrets: Iterable[str]) -> None:
    """Raise ValidationError where a file that holds these secrets is open to every user of the host."""
    names = ", ".join(secrets)
    mode = stat.S_IMODE(path.stat().st_mode)
    if names and mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ValidationError(
            f"the settings file {path} holds secrets ({names}) and has mode {mode:04o}: others may read or change it",
            f"chmod 600 {quoted(path)}; who read it knows the secrets, so replace them as well",
        )


def concerns(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """What is to be said against these files, each with its remedy: others may read them, change them, or put another
    one in their place. Those that are not there, or hidden from us, do not count."""
    found = []
    for path in paths:
        try:
            file, folder = path.stat(), path.resolve().parent.stat()
        except OSError:
            continue
        mode = stat.S_IMODE(file.st_mode)
        if mode & (stat.S_IROTH | stat.S_IRGRP | stat.S_IWOTH | stat.S_IWGRP):
            found.append((f"{path} has mode {mode:04o}: others may read or change it", f"chmod 600 {quoted(path)}"))
        if file.st_uid not in (0, os.geteuid()):
            found.append((f"{path} belongs to user {file.st_uid}, who may change it", f"chown root {quoted(path)}"))
        if folder.st_mode & (stat.S_IWOTH | stat.S_IWGRP) and not folder.st_mode & stat.S_ISVTX:
            parent = path.resolve().parent
            found.append(
                (f"others may write into {parent}, and so replace {path.name}", f"chmod go-w {quoted(parent)}")
            )
    return found
