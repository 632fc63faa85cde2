"""The embedded PostgreSQL: made once, started on demand, shared by the commands of one data folder, stopped by the last
of them.

Every user of the server holds a shared lock on one file for as long as it runs; who can turn that lock into an
exclusive one is alone, and stops the server. The kernel drops the locks of a killed process, so nothing is ever counted
wrong. Whoever uses it for long also starts it again when it dies.
"""

import fcntl
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from skyctl.domain.errors import DatabaseUnavailable, Refused, SkyctlError
from skyctl.host import data_dir as data_folder
from skyctl.host import folders, locks, postgres_tuning, signals
from skyctl.host.condition import Condition
from skyctl.host.folders import Folder
from skyctl.host.postgres_binaries import Programs
from skyctl.host.vital import VitalLoop

if TYPE_CHECKING:
    from psutil import Process

DATA = "data"
LOCK = "postmaster.pid"
OWNERS_SETTINGS = "postgresql.auto.conf"
NO_MEMORY = "could not map anonymous shared memory"
SOCKET = ".s.PGSQL.5432"
ZOMBIE = "zombie"  # as psutil says it
SOCKET_PATH_LIMIT = 107
START_SECONDS = 60
ENDING_SECONDS = 30
LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
KEEPING_BOUND_SECONDS = 300.0  # several starts, one behind the other
MOST_LOG_BYTES = 1 << 23
OTHER_DATABASE = "set SKYCTL_DATABASE_URL to use another database"
# What the shell of pg_ctl, the server's list of sockets and the driver's list of hosts all take as it is.
PLAIN = re.compile(r"[\w/.@:=~-]+")

log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """One PostgreSQL server whose data, socket and log are under `data_dir`/postgres."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.home = self.data_dir / "postgres"
        self.data = self.home / DATA
        self.sockets = self.home / "socket"
        self.log = self.home / "log"
        self._bounding = Condition(log, "log_not_kept", "log_kept")

    @property
    def url(self) -> str:
        """The address of the server: a Unix socket that only this user (and root) can reach, so there is no
        password."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.sockets))}"

    def is_made(self) -> bool:
        """Tell whether its data is there, for this user to reach; what was half made is none. Nothing is made.

        Raises DatabaseUnavailable, ValidationError or Refused where there can be none in this folder.
        """
        self._check_path()
        try:
            with folders.open_folder(self.data_dir) as top, top.folder(self.home.name) as home:
                return home.has(DATA)
        except (FileNotFoundError, PermissionError):
            return False
        except OSError as error:
            raise data_folder.unusable(self.data_dir, error) from error

    @contextmanager
    def running(self) -> Iterator[str]:
        """Keep the server up for the length of the block, and make it the first time; gives its URL.

        Raises DatabaseUnavailable or ValidationError with the remedy. A signal ends neither the start nor the stop
        halfway.
        """
        self._check_path()
        data_folder.prepare(self.data_dir)
        keeper = VitalLoop("postgres", _Keeper(self).look, KEEPING_BOUND_SECONDS, only_told=True)
        with self._opened("postgres.users") as users:
            try:
                self.bound_log()
                with self._alone() as lock, signals.held_back():
                    fcntl.flock(users, fcntl.LOCK_SH)  # nobody holds it alone for long, who does not hold the other
                    self._ensure_made(lock)
                    self._ensure_started()
                    keeper.start()
                yield self.url
            finally:
                with signals.held_back():
                    keeper.end()
                    self._leave(users)

    def revive(self) -> None:
        """Start the server again where it died under its users. Raises DatabaseUnavailable."""
        with self._alone():
            self._ensure_started()

    def stop(self) -> None:
        """Stop the server, if it runs; connections still open are ended. Who wants to start it meanwhile waits."""
        if self.answers():
            with self._alone():
                self._stop()

    def _stop(self) -> None:
        if self.answers():
            self._check(
                self._programs().run("pg_ctl", "stop", "--wait", "--mode=fast", f"--pgdata={self.data}"), "stop"
            )

    def answers(self) -> bool:
        """Tell whether a server accepts connections on our socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.sockets / SOCKET))
            except OSError:
                return False
            return True

    def bound_log(self) -> None:
        """Where the server's log has grown to its limit, keep the end of it as `log.1` and empty it: the server, which
        appends, writes on. Where nothing can be kept, as on a full disk, it is emptied all the same, and that is told:
        the server matters more."""
        if self._logged() < MOST_LOG_BYTES:
            return
        try:
            with self._alone(), self._home() as home, home.opened(self.log.name, make=True) as file:
                self._keep_end(home, file)
        except (OSError, SkyctlError) as error:
            self._bounding.failed(str(error))
        else:
            self._bounding.works()

    def _keep_end(self, home: Folder, file: IO[bytes]) -> None:
        size = self._logged()
        if size < MOST_LOG_BYTES:  # others may have been before us
            return
        try:
            file.seek(size - MOST_LOG_BYTES)
            home.write(f"{self.log.name}.1", file.read(MOST_LOG_BYTES).decode(errors="replace"))
        finally:
            file.truncate(0)

    def _leave(self, users: IO[bytes]) -> None:
        """Stop the server unless others use it."""
        with self._alone():
            if locks.taken(users, fcntl.LOCK_EX):
                self._stop()

    def _ensure_made(self, lock: IO[bytes]) -> None:
        if not (self.answers() or self.is_made()):
            programs = self._programs()
            with self._home() as home:
                self._initialize(programs, home, lock)

    def _ensure_started(self) -> None:
        """Start the server where it does not answer."""
        if self.answers():
            return
        programs = self._programs()
        with self._home() as home:
            if not home.has(DATA):
                raise self._failed("start", f"{self.data} is gone", "put it back, from a backup")
            self._forget_killed(home)
            tuned = self._tuned(home)
        logged = self._logged()
        result = self._start(programs, tuned)
        if result.returncode and NO_MEMORY in self._log_since(logged):  # a limit that we did not see
            log.warning("action=database_not_tuned; the embedded PostgreSQL gets less memory than there seems to be")
            logged = self._logged()
            result = self._start(programs, {})
        self._check(result, "start", logged)

    def _tuned(self, home: Folder) -> Mapping[str, str]:
        """The settings that fit this machine, without those that `ALTER SYSTEM` has set."""
        try:
            with home.folder(DATA) as data:
                kept = postgres_tuning.chosen_by_owner(data.read(OWNERS_SETTINGS).decode(errors="replace"))
            fit = postgres_tuning.settings(postgres_tuning.memory(), postgres_tuning.free(self.data_dir))
        except (OSError, ValueError, Refused):  # PostgreSQL's own are good everywhere
            return {}
        return {name: value for name, value in fit.items() if name not in kept}

    def _start(self, programs: Programs, tuned: Mapping[str, str]) -> "CompletedProcess[str]":
        ours = {"listen_addresses": "''", "unix_socket_directories": f"'{self.sockets}'", "max_connections": "200"}
        options = " ".join(f"-c {name}={value}" for name, value in (ours | dict(tuned)).items())
        return programs.run(
            *("pg_ctl", "start", "--wait", f"--timeout={START_SECONDS}", f"--pgdata={self.data}"),
            *(f"--log={self.log}", f"--options={options}"),
        )

    def _initialize(self, programs: Programs, home: Folder, lock: IO[bytes]) -> None:
        """Make the data. The lock goes along: should we be killed, the next one waits until initdb has ended, too."""
        half = f"{DATA}.part"
        home.remove_folder(half)
        result = programs.run(
            *("initdb", f"--pgdata={self.home / half}", "--username=postgres", "--auth=trust", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            keeping=[lock.fileno()],
        )
        self._check(result, "make the data of")
        home.rename(half, DATA)

    def _programs(self) -> Programs:
        """The programs, and the folders that they work in."""
        try:
            with data_folder.opened(self.data_dir) as top:
                programs = Programs(top)
                with programs.own(top, self.home.name) as home, programs.own(home, self.sockets.name):
                    pass
        except OSError as error:  # of the copy, the first of all that went wrong
            reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
            raise self._failed("prepare", reason) from error
        return programs

    @contextmanager
    def _home(self) -> Iterator[Folder]:
        with data_folder.opened(self.data_dir) as top, top.folder(self.home.name) as home:
            yield home

    @contextmanager
    def _alone(self) -> Iterator[IO[bytes]]:
        with self._opened("postgres.lock") as lock:
            locks.wait_for(lock, self.data_dir / "postgres.lock")
            yield lock

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        with ExitStack() as stack:
            try:
                top = stack.enter_context(data_folder.opened(self.data_dir))
                file = stack.enter_context(top.opened(name, make=True))
            except OSError as error:
                raise data_folder.unusable(self.data_dir, error) from error
            yield file

    def _check_path(self) -> None:
        if not PLAIN.fullmatch(str(self.data_dir)):
            raise DatabaseUnavailable(
                f"SKYCTL_DATA_DIR: {str(self.data_dir)!r} is no path for the embedded PostgreSQL",
                f"write it with letters, digits and / . _ - @ : = ~ alone; or {OTHER_DATABASE}",
            )
        if len(os.fsencode(self.sockets / SOCKET)) > SOCKET_PATH_LIMIT:
            raise DatabaseUnavailable(
                f"the data folder's path is too long for a Unix socket: {self.data_dir}",
                "set SKYCTL_DATA_DIR to a shorter path",
            )

    def _forget_killed(self, home: Folder) -> None:
        """Take away the lock of a killed server once all of its processes have ended.

        They all work in its data folder; those that the killed one leaves end by themselves, but not at once, and a
        server does not start beside them. Nor does it start while a process has the number that the lock names: the
        killed one that nobody reaped, as in a container without an init process, or another program by now.
        """
        with home.folder(DATA) as data, home.folder(self.sockets.name) as sockets:
            if not data.has(LOCK):
                return
            import psutil  # here, since few starts come after a kill

            named = _server_pid(data)
            owner = self.data.stat().st_uid
            running = psutil.process_iter(["cwd", "status", "uids"])
            left = [process for process in running if self._works_here(process, named, owner)]
            if left:
                log.warning("action=server_ends; waiting for what the killed server has left: %d processes", len(left))
            if not psutil.wait_procs(left, ENDING_SECONDS)[1]:
                data.remove(LOCK)
                sockets.remove(f"{SOCKET}.lock")

    def _works_here(self, process: "Process", named: int, owner: int) -> bool:
        """Whether it is, or may be, a process of our server, which is its data's owner's, and whose lock names one."""
        folder, uids = process.info["cwd"], process.info["uids"]
        is_named = process.pid == named and process.info["status"] != ZOMBIE
        unknown = folder is None and is_named and (uids is None or uids.real == owner)
        return unknown or bool(folder == os.path.realpath(self.data))

    def _check(self, result: "CompletedProcess[str]", what: str, logged: int = 0) -> None:
        """Raise DatabaseUnavailable with what a failed program said, to the server's log from `logged` on or to us."""
        if result.returncode:
            words = (self._log_since(logged) or result.stdout).strip()
            lines = words.splitlines() or [f"exit code {result.returncode}"]
            found = filter(None, (re.search("(error|FATAL|PANIC):.*", line) for line in lines))  # without the time
            reason = next((match[0] for match in found), lines[-1])
            raise self._failed(what, reason, f"read {self.log}" if self.log.exists() else None)

    def _failed(self, what: str, reason: object, remedy: str | None = None) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"could not {what} the embedded PostgreSQL: {reason}",
            f"{remedy or f'see that {self.data_dir} has room'}; or {OTHER_DATABASE}",
        )

    def _log_since(self, offset: int) -> str:
        try:
            with self._home() as home:
                return home.read(self.log.name, offset).decode(errors="replace")
        except (OSError, Refused):
            return ""

    def _logged(self) -> int:
        """How much the server's log holds."""
        try:
            return self.log.lstat().st_size
        except OSError:
            return 0


class _Keeper:
    """Starts the server again whenever it died; where that fails, it tries with growing pauses."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server, self._pause = server, LOOK_SECONDS
        self._living = Condition(log, "database_died", "database_lives", quiet_seconds=0.0)

    def look(self) -> float:
        """See that the server answers; return in how many seconds to look again."""
        try:
            if not self._server.answers():
                self._living.failed("it does not answer; starting it again")
                self._server.revive()
            self._living.works()
            self._pause = LOOK_SECONDS
        except SkyctlError as error:
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._living.failed(error.message)
        self._server.bound_log()
        return self._pause


def _server_pid(data: Folder) -> int:
    """The process that a server's lock names; 0, which is nobody's, where it names none."""
    try:
        return int(data.read(LOCK).split()[0])
    except (OSError, ValueError, IndexError):
        return 0
