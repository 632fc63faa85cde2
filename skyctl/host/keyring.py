"""The secrets that sign and check tokens: those that were set, else those kept in one file of the data folder.

The file's first line is the secret that signs. Those after it, `SECRET until TIME`, are still accepted for a while. It
is read again whenever it has changed, so that no process needs a restart to follow a rotation.

The secrets themselves sign administrators' tokens, as the panel does. Workers' tokens are signed by a key that is
derived from the secret and from the salt of the installation, which is in the database, so that every `serve` of a
database and a secret has the same one.
"""

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from skyctl.domain.errors import Refused, SkyctlError
from skyctl.domain.secrets import MAKE_ONE, weakness
from skyctl.domain.tokens import Key
from skyctl.host import data_dir, owners
from skyctl.host.folders import Folder

REPLACE_WEAK = f"{MAKE_ONE}; put it first, and end the line of the former with ` until TIME`, as 2027-01-31T00:00Z"
FILE = "jwt-secret"
INSTALL = "as root: skyctl systemd install"
RESTORE = "restore it from a backup; or remove it, and every token must be issued again"


class Keyring:
    """The secrets of this installation. `salt` returns the installation's, and is asked when the first token is looked
    at. `configured`: the secret that was set, and the one set before it, if any.

    Where serve and monitor are two users, each has the file in its own folder; who may enter the monitor's reads that
    one, and changes both.
    """

    def __init__(self, folder: Path | None, salt: Callable[[], str], configured: Sequence[str] = ()) -> None:
        monitors = data_dir.apart_from(folder) if folder else None
        self._is_apart = monitors is not None
        self._copied_to = folder if monitors and os.access(monitors, os.X_OK) else None
        self._folder = monitors if self._copied_to else folder
        self._ask_salt = salt
        self._salt: str | None = None
        self._asking = threading.Lock()
        self._keys = tuple(map(Key, configured))
        self._is_configured = bool(configured)
        self._version: tuple[int, ...] = ()

    def check(self) -> None:
        """Make the secret where none is there. Raises SkyctlError where the file cannot be used."""
        self._read()

    def signing(self) -> Key:
        """The key that signs workers' tokens. Raises SkyctlError, DatabaseUnavailable."""
        return self._read()[0].for_workers(self._salted())

    def accepted(self, now: datetime) -> Sequence[Key]:
        """The keys by which a worker's token may have been signed, the one that signs first; the secrets themselves,
        by which former versions and the panel sign, last."""
        secrets_now, salt = self.administrators(now), self._salted()
        return [*(key.for_workers(salt) for key in secrets_now), *secrets_now]

    def administrators(self, now: datetime) -> Sequence[Key]:
        """The secrets by which an administrator's token may have been signed, the one that signs first."""
        return [key for key in self._read() if key.good_until is None or now < key.good_until]

    def at_hand(self) -> Sequence[Key] | None:
        """The keys that signed whatever we signed, also those that are accepted no more; None where the salt was not
        read so far: this asks no database."""
        if self._salt is None:
            return None
        salt, all_secrets = self._salt, self._read()
        return [*(key.for_workers(salt) for key in all_secrets), *all_secrets]

    def _salted(self) -> str:
        if self._salt is None:
            with self._asking:  # many threads begin at once, and one answer is for all
                self._salt = self._salt or self._ask_salt()
        return self._salt

    def rotate(self, now: datetime, good_until: datetime) -> None:
        """Replace the secret that signs, and accept the present one until then. Raises Refused where it was set."""
        if self._is_configured or self._folder is None:
            raise Refused(
                "the signing secret was set, so that it cannot be replaced here",
                "set SKYCTL_JWT_SECRET to a new one and SKYCTL_JWT_SECRET_PREVIOUS to the present one, and restart "
                "every `skyctl serve` and `skyctl monitor`",
            )
        self.check()  # made before the lock, which making it takes as well
        with data_dir.opened(self._folder) as folder, data_dir.alone(folder):
            present, *others = self.administrators(now)
            keys = [Key(secrets.token_hex(32)), Key(present.secret, good_until), *others]
            self._write(folder, "\n".join(map(_line, keys)))

    def _write(self, folder: Folder, text: str) -> None:
        folder.write(FILE, text)
        if self._copied_to:
            data_dir.write_private(path(self._copied_to), text)

    def _read(self) -> tuple[Key, ...]:
        """The keys, read again where the file is another one than before."""
        if self._is_configured or self._folder is None:
            return self._keys
        kept = path(self._folder)
        try:
            self._read_file(self._folder, kept)
        except PermissionError as error:
            whose, remedy = owners.kept_out(kept)
            raise SkyctlError(f"{kept} cannot be used: {error.strerror}: {whose}", remedy) from error
        except OSError as error:
            raise SkyctlError(f"{kept} cannot be used: {error.strerror}", RESTORE) from error
        except UnicodeDecodeError:
            raise SkyctlError(f"{kept} holds no secrets", RESTORE) from None
        except Refused as error:  # for whoever asks over HTTP it is no conflict of theirs
            raise SkyctlError(error.message, f"{error.hint}; {RESTORE}") from error
        if not self._keys:
            raise SkyctlError(f"{kept} is empty", RESTORE)
        return self._keys

    def _read_file(self, folder: Path, kept: Path) -> None:
        try:
            if _version(kept.stat()) == self._version:
                return
        except (FileNotFoundError, NotADirectoryError):
            if self._keys:  # whoever took the file away, tokens that were issued stay good here
                return
            if self._is_apart and not self._copied_to:
                raise SkyctlError(f"{kept} is missing", INSTALL) from None
            if self._copied_to and os.path.lexists(path(self._copied_to)):  # what has signed so far
                raise SkyctlError(f"{kept} is missing, and {path(self._copied_to)} is there", INSTALL) from None
            with data_dir.opened(folder, make=True) as opened, data_dir.alone(opened):
                if not opened.has(FILE):
                    self._write(opened, _line(Key(secrets.token_hex(32))))
        with data_dir.opened(folder) as opened, opened.opened(FILE) as file:
            version = _version(os.fstat(file.fileno()))
            lines = file.read().decode("ascii").splitlines()
        keys = tuple(_key(kept, line) for line in lines if line.strip())
        if keys and (weak := weakness(keys[0].secret)):
            raise SkyctlError(f"{kept}: the secret that signs can be guessed: {weak}", REPLACE_WEAK)
        self._keys, self._version = keys, version


def path(folder: Path) -> Path:
    """The file of the secrets that were made because none was set."""
    return folder / FILE


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _line(key: Key) -> str:
    return f"{key.secret} until {key.good_until.isoformat()}" if key.good_until else key.secret


def _key(kept: Path, line: str) -> Key:
    secret, _, until = line.strip().partition(" until ")
    try:
        good_until = datetime.fromisoformat(until) if until else None
        if good_until and good_until.tzinfo is None:
            raise ValueError
        return Key(secret, good_until)
    except ValueError:
        raise SkyctlError(f"{kept}: a line is no secret with the time until which it is accepted", RESTORE) from None
