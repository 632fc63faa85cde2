"""The data folders of the services, one for each user: what `serve` may know is in its own, the authority in the
monitor's.

An installation from before, whose services were one user, has all of it in one: the authority is moved, and the signing
secret copied, before the monitor's folder is there under its name. From then on no authority is taken from `serve`.
"""

import os
import pwd
import shutil
from pathlib import Path

from skyctl import host
from skyctl.domain.errors import Refused
from skyctl.host import folders
from skyctl.host.data_dir import of_monitor, write_private
from skyctl.host.folders import Folder
from skyctl.host.keyring import Keyring
from skyctl.host.system_users import account

SERVE = Path("/var/lib/skyctl")
MONITOR = of_monitor(SERVE)
OF_DATABASE = "postgres"  # how the names begin of what the embedded database keeps in the data folder
AUTHORITY = ("ca.key", "ca.pem")


def is_unmade() -> bool:
    """Tell whether the monitor has no folder of its own yet."""
    return not MONITOR.exists()


def make_monitors() -> None:
    """Make the monitor's folder with the authority and the signing secret in it, all of it or nothing.

    Raises OSError, and Refused where a file is none that belongs there.
    """
    half = MONITOR.with_name(f".{MONITOR.name}.half")
    if half.is_dir():  # a run that was broken off
        shutil.rmtree(half)
    half.mkdir(mode=0o700)
    if SERVE.exists():
        with folders.open_folder(SERVE) as folder:
            if folder.has("jwt-secret"):
                write_private(half / "jwt-secret", folder.read("jwt-secret").decode("ascii"))
            if folder.has("tls"):
                with folder.folder("tls") as tls:
                    _copy_authority(tls, half)
    half.rename(MONITOR)


def _copy_authority(tls: Folder, monitors: Path) -> None:
    """Copy the authority, and note the names for which there is a certificate: those of `skyctl tls init` so far."""
    if not all(tls.has(name) for name in AUTHORITY):
        return
    with folders.open_folder(monitors) as folder, folder.folder("tls", make=True, mode=0o700) as target:
        for name in AUTHORITY:
            target.write(name, tls.read(name).decode("ascii"))
        if tls.has("server.pem"):
            try:
                names = host.x509.read(tls.read("server.pem")).names
            except ValueError:
                return
            target.write("names", "".join(f"{name}\n" for name in names))


def has_roots_authority() -> bool:
    """Tell whether the monitor has no authority, and root has put one into the folder of `serve`: one from before. One
    that `serve` may have made is not taken."""
    try:
        if (MONITOR / "tls/ca.pem").exists():
            return False
        with _tls_of(SERVE) as tls, tls.opened("ca.key") as key, tls.opened("ca.pem") as certificate:
            return all(os.fstat(file.fileno()).st_uid == 0 for file in (key, certificate))
    except (OSError, Refused):
        return False


def take_authority() -> None:
    """Copy that authority for the monitor. Raises OSError, Refused."""
    with _tls_of(SERVE) as tls:
        _copy_authority(tls, MONITOR)


def has_left_key() -> bool:
    """Tell whether the authority's key is still in the folder of `serve`, where a run was broken off."""
    try:
        with _tls_of(SERVE) as tls:
            return tls.has("ca.key") and tls.read("ca.key") == (MONITOR / "tls/ca.key").read_bytes()
    except (OSError, Refused):
        return False


def remove_left_key() -> None:
    """Take the authority's key away from `serve`, and the names that nobody reads there any more."""
    with _tls_of(SERVE) as tls:
        for name in ("names", "ca.key"):  # the key last: while it is there, this is due
            if tls.has(name):
                os.unlink(name, dir_fd=tls.number)


def _tls_of(path: Path) -> Folder:
    with folders.open_folder(path) as folder:
        return folder.folder("tls")


def lacks_secret() -> bool:
    """Tell whether `serve` has another signing secret than the monitor, or either of them none."""
    try:
        kept = (MONITOR / "jwt-secret").read_bytes()
        with folders.open_folder(SERVE) as folder:
            return folder.read("jwt-secret") != kept
    except FileNotFoundError:
        return True
    except (PermissionError, Refused):
        return False


def share_secret() -> None:
    """Give `serve` the monitor's signing secret: where it has none, that of `serve`, or else one that is made."""
    if not (MONITOR / "jwt-secret").exists() and SERVE.exists():
        with folders.open_folder(SERVE) as folder:
            if folder.has("jwt-secret"):
                write_private(MONITOR / "jwt-secret", folder.read("jwt-secret").decode("ascii"))
    Keyring(SERVE, str).check()
    with folders.open_folder(SERVE) as folder:
        folder.write("jwt-secret", (MONITOR / "jwt-secret").read_text(encoding="ascii"))


def strangers(path: Path, user: str) -> list[Path]:
    """Return what in a data folder is not this user's, without what the embedded database keeps there."""
    owner = account(user)
    return folders.strangers(path, owner.pw_uid if owner else folders.ANYBODY, keep=OF_DATABASE)


def hand_over(path: Path, user: str) -> None:
    """Give a data folder to this user; it is made where it is missing."""
    owner = pwd.getpwnam(user)
    folders.hand_over(path, owner.pw_uid, owner.pw_gid, keep=OF_DATABASE)
