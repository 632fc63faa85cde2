"""skyctl up: the database, the API, the monitor and this machine's agent, in one foreground process group."""

import ctypes
import fcntl
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from skyctl import wiring
from skyctl.api import server
from skyctl.cli import show
from skyctl.errors import AlreadyRunning, DatabaseUnavailable, Refused, WorkerNotFound
from skyctl.model import WorkerPage, WorkerStatus
from skyctl.operations import health, schema, workers
from skyctl.operations.world import World
from skyctl.settings import DEFAULT_PORT, Settings, write_private

HOST = "127.0.0.1"
REFRESH_SECONDS = 1.0
STOP_SECONDS = 5.0
RESTART_SECONDS = 1.0
KEPT_LINES = 8
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1

Line = tuple[str, str]


class Child:
    """One process of ours; its stderr arrives line by line in the queue, and it ends when we end."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], lines: "queue.SimpleQueue[Line]"
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-m", *command]
        self._environment = os.environ | environment
        self._lines = lines
        self._restart_at = 0.0
        self._libc = ctypes.CDLL(None)
        self.start()

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", preexec_fn=self._end_with_parent,  # noqa: PLW1509 - one call that takes no lock
        )  # fmt: skip
        threading.Thread(target=self._read, args=[self._process.stderr], daemon=True).start()

    def restart_if_ended(self) -> None:
        """Start it again a moment after it ended by itself."""
        if self._process.poll() is None:
            return
        if not self._restart_at:
            self._lines.put((self.name, f"ended with exit code {self._process.returncode}; starts again"))
            self._restart_at = time.monotonic() + RESTART_SECONDS
        elif time.monotonic() >= self._restart_at:
            self._restart_at = 0.0
            self.start()

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end_with_parent(self) -> None:
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put((self.name, line.rstrip()))


class Supervisor:
    """Starts everything, shows it, and stops it."""

    def __init__(self, settings: Settings, console: Console, config: Path | None) -> None:
        self._settings = settings
        self._console = console
        self._config = config
        self._lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._recent: deque[str] = deque(maxlen=KEPT_LINES)
        self._stopping = False
        self._said: WorkerStatus | None = None

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP. Raises AlreadyRunning, DatabaseUnavailable."""
        for number in SIGNALS:
            signal.signal(number, self._handle)
        port = _free_port()
        url = f"http://{HOST}:{port}"
        self._settings.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _only_one(self._settings.data_dir / "up.lock", url), ExitStack() as stack:
            self._say(f"data in {self._settings.data_dir}")
            database = stack.enter_context(wiring.database_url(self._settings))
            settings = replace(self._settings, database_url=database, api_url=url)
            world = wiring.connect(settings, database)
            stack.callback(world.db.close)
            if not schema.check(world).complete:
                schema.initialize(world)
            token, agent_file = self._local_worker(world)
            self._say(f"API on {url}" + ("" if port == DEFAULT_PORT else f" (port {DEFAULT_PORT} is taken)"))
            children = self._start(settings, port, agent_file)
            try:
                self._watch(world, token, children)
            finally:
                self._say("stopping")
                self._stop(world, token, children)

    def _handle(self, _number: int, _frame: object) -> None:
        self._stopping = True
        self._lines.put(("up", ""))

    def _say(self, text: str) -> None:
        self._console.print(Text(f"up: {text}"))

    def _local_worker(self, world: World) -> tuple[str, Path]:
        """The token of this machine, and the agent's file with it: the kept one while it is good, else a new one."""
        path = self._settings.data_dir / "agent.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        token = kept.get("authToken", "")
        if not (token and workers.by_token(world, token)):
            token = workers.invite(world, "up").token
        write_private(path, json.dumps({"apiUrl": world.api_url, "authToken": token}))
        return token, path

    def _start(self, settings: Settings, port: int, agent_file: Path) -> list[Child]:
        environment = {"SKYCTL_DATABASE_URL": settings.database_url or "", "SKYCTL_DATA_DIR": str(settings.data_dir)}
        if self._config:
            environment["SKYCTL_CONFIG"] = str(self._config)
        commands = {
            "serve": ["skyctl", "serve", "--host", HOST, "--port", str(port)],
            "monitor": ["skyctl", "monitor"],
            "agent": ["skyagent", "--config", str(agent_file)],
        }
        return [Child(name, command, environment, self._lines) for name, command in commands.items()]

    def _watch(self, world: World, token: str, children: list[Child]) -> None:
        """Show the cluster until the stop, and keep everything running."""
        with self._screen() as live:
            while not self._stopping:
                for child in children:
                    child.restart_if_ended()
                try:
                    page = workers.list_workers(world)
                    mine = workers.by_token(world, token)
                    self._show(live, page, mine.status if mine else None)
                except DatabaseUnavailable as error:
                    self._note("up", f"{error.message}; starting it again")
                    self._revive()
                self._take_lines(live)

    def _revive(self) -> None:
        try:
            wiring.revive_database(self._settings)
        except DatabaseUnavailable as error:
            self._note("up", error.message)

    def _take_lines(self, live: Live | None) -> None:
        """Wait for lines of the children, at most until the next refresh."""
        deadline = time.monotonic() + REFRESH_SECONDS
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            try:
                name, line = self._lines.get(timeout=left)
            except queue.Empty:
                return
            if line:
                self._note(name, line, quiet=live is not None)

    def _note(self, name: str, line: str, *, quiet: bool = False) -> None:
        self._recent.append(f"{name}: {line}")
        if not (quiet or self._console.is_terminal):
            self._console.print(Text(f"{name}: {line}"))

    @contextmanager
    def _screen(self) -> Iterator[Live | None]:
        if not self._console.is_terminal:
            yield None
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield live

    def _show(self, live: Live | None, page: WorkerPage, status: WorkerStatus | None) -> None:
        if live:
            lines = Text("\n".join(self._recent), style="dim", no_wrap=True, overflow="ellipsis")
            tail = Text("Ctrl-C stops; in a second terminal: skyctl workers list", style="dim")
            live.update(Group(*show.worker_table(page, wide=False), Text(""), lines, tail), refresh=True)
        elif status is not self._said:
            self._said = status
            self._say(f"this machine is {status.value if status else 'gone'}")

    def _stop(self, world: World, token: str, children: list[Child]) -> None:
        """Stop the agent, mark this machine as gone, then stop the rest."""
        serve, watcher, agent = children
        agent.stop()
        try:
            if mine := workers.by_token(world, token):
                workers.note_stopped(world, mine.id, "up")
            health.check(world, f"{socket.gethostname()}:{os.getpid()}", timedelta(seconds=1))
        except (DatabaseUnavailable, WorkerNotFound) as error:
            self._say(f"could not mark this machine as gone: {error.message}")
        watcher.stop()
        serve.stop()


@contextmanager
def _only_one(path: Path, url: str) -> Iterator[None]:
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(
                f"skyctl up runs already: {lock.read().strip()}", "use it from here, or stop it there with Ctrl-C"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, API on {url}\n")
        lock.flush()
        yield
        lock.truncate(0)


def _free_port() -> int:
    """The usual port, or a free one where that is taken."""
    for port in (DEFAULT_PORT, 0):
        try:
            with server.listen(HOST, port) as listener:
                found: int = listener.getsockname()[1]
                return found
        except Refused:
            continue
    raise Refused("no port is free on 127.0.0.1", "end a process that listens there")
