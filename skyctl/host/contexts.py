"""The contexts of this user: the managers elsewhere that they have logged in to, in one file that is theirs alone."""

import json
import os
import stat
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from skyctl.domain.addresses import is_loopback
from skyctl.domain.errors import ContextNotFound, Refused, ValidationError
from skyctl.domain.text import is_plain, quoted
from skyctl.host import data_dir, locks, owners, private_file
from skyctl.host.api_address import Address

FILE, LOCK = "contexts.json", "contexts.lock"
LOCAL = "local"
"""What is named where no context is meant, and which therefore is the name of none."""
LARGEST_FILE = 1 << 20
LONGEST_NAME = 64
LOG_IN = "skyctl login {}"


class Context(NamedTuple):
    """A manager elsewhere: by which name, at which URL, the token that lets in (empty after a logout), and the PEM
    certificate of the authority that alone may vouch for it (empty where those of the system do)."""

    name: str
    url: str
    token: str = ""
    authority: str = ""

    def __repr__(self) -> str:
        return f"Context({self.name!r}, {self.url!r})"

    @property
    def address(self) -> Address:
        """Where and how it is asked. Raises ValidationError where this user has logged out of it, and where its token
        would travel in the clear."""
        check_transport(f"context {self.name}", self.url)
        if not self.token:
            raise ValidationError(f"context {self.name}: you have logged out of it", LOG_IN.format(quoted(self.url)))
        return Address(self.url, self.token, self.authority)


class Contexts(NamedTuple):
    """All contexts, by name, and the name of the current one; empty where there is none."""

    known: tuple[Context, ...] = ()
    current: str = ""

    def named(self, source: str, name: str) -> Context:
        """Return the context of this name. Raises ContextNotFound, which says by what it was named."""
        names = [context.name for context in self.known]
        if name in names:
            return self.known[names.index(name)]
        near = get_close_matches(name, names)
        asked = f"did you mean {' or '.join(near)}? " if near else ""
        raise ContextNotFound(f"{source}: there is no context {name!r}", f"{asked}see `skyctl context list`")

    def holding(self, context: Context) -> "Contexts":
        """Return them with this one, in place of one of its name, as the current one."""
        return Contexts(tuple(sorted((*self.without(context.name).known, context))), context.name)

    def without(self, name: str) -> "Contexts":
        """Return them without the one of this name, and with no current one where it was that."""
        known = tuple(context for context in self.known if context.name != name)
        return Contexts(known, "" if self.current == name else self.current)


def check_transport(source: str, url: str) -> None:
    """Raise ValidationError where a token would travel to this URL in the clear."""
    if not (url.lower().startswith("https://") or is_loopback(url)):
        raise ValidationError(
            f"{source}: {url} is plain HTTP, by which anybody on the way reads the token",
            "give its https:// address; plain HTTP is for this machine alone, such as http://127.0.0.1:8642",
        )


def checked_name(source: str, name: str) -> str:
    """Return a name that a context may have. Raises ValidationError."""
    if not is_plain(name) or len(name) > LONGEST_NAME or name == LOCAL:
        accepted = f"letters, digits, `.`, `-`, `_`, at most {LONGEST_NAME}, and not {LOCAL}"
        raise ValidationError(f"{source}: {name!r} is no name of a context", f"take {accepted}")
    return name


def path() -> Path:
    """Return where the contexts are kept."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(home) if home.startswith("/") else Path.home() / ".config"
    return folder / "skyctl" / FILE


def read() -> Contexts:
    """Return the contexts; none where there is no file. Raises ValidationError where the file is another's, or others
    can read it, or it is not as it was written here."""
    file = path()
    try:
        number = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except PermissionError as error:
        closed = data_dir.closed_to_us(file.parent)
        if closed and closed.stat().st_uid != os.geteuid():  # the home is another user's: none of these are ours
            return Contexts()
        whose, remedy = owners.kept_out(file)
        raise ValidationError(f"{file} cannot be read: {error.strerror}: {whose}", remedy) from error
    except OSError as error:
        raise ValidationError(f"{file} cannot be read: {error.strerror}", "see what it is, and move it away") from error
    with os.fdopen(number, "rb") as opened:
        _refuse_open(file, os.fstat(number))
        return _parsed(file, opened.read(LARGEST_FILE))


def change(alter: Callable[[Contexts], Contexts]) -> Contexts:
    """Keep what `alter` makes of the contexts, and return it; nobody else changes them meanwhile.

    Raises what `read` and `alter` do, and Refused or ValidationError where nothing can be written there.
    """
    file = path()
    lock = file.with_name(LOCK)
    _prepare(file.parent)
    try:
        number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(lock, error) from error
    with os.fdopen(number, "r+b") as held:
        locks.wait_for(held, lock)
        changed = alter(read())
        document = {"current": changed.current, "contexts": [context._asdict() for context in changed.known]}
        with private_file.opened("XDG_CONFIG_HOME", file) as text:
            text.write(json.dumps(document, indent=2) + "\n")
    return changed


def _prepare(folder: Path) -> None:
    """Make the folder, for this user alone. Raises ValidationError, and Refused where it is another's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise _unusable(folder, error) from error
    if found.st_uid != os.geteuid():
        raise Refused(f"{folder} belongs to user {found.st_uid}, who could read your tokens", _OWN_FOLDER)


def _unusable(path: Path, error: OSError) -> ValidationError:
    return ValidationError(f"XDG_CONFIG_HOME: {path} cannot be used: {error.strerror}", _OWN_FOLDER)


_OWN_FOLDER = "set XDG_CONFIG_HOME to a folder of your own; with sudo: sudo -H"


def _refuse_open(file: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ValidationError(f"{file} is no regular file", "move it away, and log in again")
    if found.st_uid != os.geteuid():
        raise ValidationError(f"{file} belongs to user {found.st_uid}, who may change it", _OWN_FOLDER)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise ValidationError(
            f"{file} holds tokens and has mode {mode:04o}: others may read or change it",
            f"chmod 600 {quoted(file)}; who read it has the tokens, so have new ones made",
        )


def _parsed(file: Path, content: bytes) -> Contexts:
    """Return what the file says. No error shows any of it: there are tokens in it."""
    try:
        document = json.loads(content)
        known = tuple(Context(**{name: _text(each, name) for name in Context._fields}) for each in document["contexts"])
        current = _text(document, "current")
        is_whole = len({context.name for context in known}) == len(known)
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise ValidationError(f"{file} is not as skyctl writes it", "move it away, and log in again: skyctl login URL")
    return Contexts(known, current)


def _text(document: Any, field: str) -> str:
    if not isinstance(document[field], str):
        raise TypeError(field)
    return str(document[field])
