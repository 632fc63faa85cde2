"""System users: accounts as which programs run, and nobody logs in."""

import pwd
import subprocess
from pathlib import Path

from skyctl.domain.errors import Refused
from skyctl.host import locks

ACCOUNTS_LOCK = Path("/etc/.pwd.lock")  # which useradd locks too, in a way of its own


def system_account(name: str, home: Path, comment: str = "") -> pwd.struct_passwd:
    """The system user of this name, made where it is missing. Raises Refused."""
    if existing := account(name):
        return existing
    command = ["useradd", "--system", "--user-group", "--no-create-home", f"--home-dir={home}", f"--comment={comment}"]
    try:
        ACCOUNTS_LOCK.touch(mode=0o600)
        with ACCOUNTS_LOCK.open("ab") as lock:
            locks.wait_for(lock, ACCOUNTS_LOCK)  # of those that miss it at the same time, one makes it
            if not account(name):
                subprocess.run([*command, "--shell=/usr/sbin/nologin", name], check=True, capture_output=True)
        return pwd.getpwnam(name)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        raise Refused(f"the system user {name} could not be made", f"add a system user named {name}") from error


def account(name: str) -> pwd.struct_passwd | None:
    """The user of this name, if there is one."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def owner_of(path: Path) -> str:
    """The name of whose it is, or the number where there is no such user. Raises OSError."""
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)
