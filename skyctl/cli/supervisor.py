"""skyctl up: the database, the API, the monitor and this machine's agent, in one foreground process group."""

import json
import logging
import math
import queue
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit
from uuid import UUID

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from skyctl import wiring
from skyctl.api import server
from skyctl.cli.child_process import Child, Line
from skyctl.cli.up_log import NAME, Log, UpLog
from skyctl.cli.views import workers as workers_views
from skyctl.cli.views.terminal import Outlet
from skyctl.documents.http import Document
from skyctl.documents.workers import page_document
from skyctl.domain.cluster import Actor
from skyctl.domain.errors import DatabaseUnavailable, Refused, SkyctlError, WorkerNotFound
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import without_secrets
from skyctl.host import data_dir, signals, vital
from skyctl.host.certificates import Certificates, is_due
from skyctl.host.data_dir import read_private, write_private
from skyctl.monitor.loop import Monitor
from skyctl.monitor.metrics import Meters
from skyctl.operations.admin import node_claims, schema, workers
from skyctl.operations.agents import invitations
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context
from skyctl.settings import Settings
from skyctl.settings.table import DEFAULT_PORT

HOST = "127.0.0.1"
UP = Actor("up", ip_address="local")
REFRESH_SECONDS = 1.0
UNIX = "unix:///"
KEPT_LINES = 8


class Supervisor:
    """Starts everything, shows it, and stops it."""

    def __init__(self, settings: Settings, console: Console, config: Path | None) -> None:
        self._settings = settings
        self._console = console
        self._config = config
        self._lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._stopping = False
        self._last_state = ""

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP. Raises AlreadyRunning, DatabaseUnavailable."""
        signals.on_end(self._handle)
        self._console.file = cast(IO[str], Outlet(self._console.file))
        logging.basicConfig(handlers=[Log(self._lines)], level=logging.WARNING)
        folder = self._settings.data_dir
        data_dir.prepare(folder)
        with _listener() as listener, ExitStack() as stack:
            port = listener.getsockname()[1]
            url = f"http://{HOST}:{port}"
            stack.enter_context(data_dir.only_up(folder, url))
            self._log = stack.enter_context(UpLog(folder))
            stack.callback(self._keep_the_rest)
            self._print(f"data in {folder}, log in {folder / NAME}")
            self._warn_of_certificate()
            database = stack.enter_context(wiring.database_url(self._settings, make=True))
            settings = replace(self._settings, database_url=database, api_url=url)
            context = wiring.connect(settings, database)
            stack.callback(context.db.close)
            if not schema.check(context).complete:
                schema.initialize(context)
            mine, agent_file = self._local_worker(context)
            node_claims.allow_own(context, mine, UP)
            self._print(f"API on {url}" + ("" if port == DEFAULT_PORT else f" (port {DEFAULT_PORT} is taken)"))
            number = listener.fileno()
            serve = self._start(
                stack, database, "serve", "skyctl", "serve", "--listener", str(number), keeping=[number]
            )
            stack.callback(self._conclude, context)
            children = [serve, self._start(stack, database, "monitor", "skyctl", "monitor")]
            stack.callback(self._mark_gone, context, mine)
            agent = partial(self._start, stack, database, "agent", "skyagent", "--config", str(agent_file))
            self._watch(context, mine, children, agent)
            self._print("stopping")

    def _handle(self, _number: int, _frame: object) -> None:
        self._stopping = True
        self._lines.put(("up", ""))

    def _print(self, text: str) -> None:
        self._console.print(Text(self._log.take("up", text)))

    def _warn_of_certificate(self) -> None:
        """Warn of a certificate that is about to end: here nothing uses it, and so nothing renews it."""
        now = datetime.now(UTC)
        try:
            certificates = Certificates(self._settings.data_dir).inspect()
        except SkyctlError as error:
            self._print(error.message)
            return
        for certificate in certificates:
            if is_due(certificate, now):
                ends = "ended" if certificate.ends_at <= now else "ends"
                day = f"{certificate.ends_at:%Y-%m-%d}"
                self._print(f"the {certificate.role}'s certificate {ends} on {day}: skyctl tls init --renew")

    def _local_worker(self, context: Context) -> tuple[UUID, Path]:
        """The worker that this machine is, and the agent's file with its token: the kept one while one is good, else a
        new one.

        Beside that file the agent keeps the tokens that it was handed since.
        """
        path = self._settings.data_dir / "agent.json"
        token = _kept(path, "authToken")
        for candidate in filter(None, (_kept(path.with_name("token.json"), "token"), token)):
            if worker := authentication.worker_of_token(context, candidate):
                token = token or candidate
                break
        else:
            invitation = invitations.invite(context, UP)
            worker, token = workers.get(context, invitation.worker_id), invitation.token
        fields = {"apiUrl": context.api_url, "authToken": token, **self._engine_of_agent()}
        write_private(path, json.dumps(fields))
        return worker.id, path

    def _engine_of_agent(self) -> dict[str, str]:
        """The agent's field for the engine that DOCKER_HOST names; none where that is not set, or no unix socket, which
        is said."""
        host = self._settings.docker_host
        if host is None:
            return {}
        if host.startswith(UNIX):
            return {"dockerSocket": host.removeprefix("unix://")}
        self._print(
            f"DOCKER_HOST is {without_secrets(host)}, and an agent asks engines of its own machine alone: it looks at "
            "the local socket; for another engine of this machine set DOCKER_HOST to unix:///path/of/its/socket"
        )
        return {}

    def _start(self, stack: ExitStack, database: str, name: str, *command: str, keeping: Sequence[int] = ()) -> Child:
        """Start one part, which stops with the stack."""
        environment = {"SKYCTL_DATABASE_URL": database, "SKYCTL_DATA_DIR": str(self._settings.data_dir)}
        if self._config:
            environment["SKYCTL_CONFIG"] = str(self._config)
        child = Child(name, list(command), environment, self._lines, keeping)
        stack.callback(child.stop)
        return child

    def _watch(self, context: Context, mine: UUID, children: list[Child], agent: Callable[[], Child]) -> None:
        """Show the cluster until the stop, and keep everything running.

        The agent starts once the API answers: the first load that it reports shall not be that of our own start.
        """
        ours = vital.Vital("up", math.inf)
        with self._screen() as live:
            waits = True
            while not self._stopping:
                try:
                    for child in children:
                        child.restart_if_ended()
                    if waits and _answers(context.api_url):
                        children.append(agent())
                        waits = False
                    self._look(context, mine, live)
                    ours.works()
                except DatabaseUnavailable as error:
                    self._note_once(error.message)
                except Exception as error:  # noqa: BLE001 - whatever it is, what runs is kept running
                    ours.failed(error)
                self._take_lines(live)

    def _look(self, context: Context, mine: UUID, live: Live | None) -> None:
        """Show the cluster once. Raises DatabaseUnavailable."""
        page = workers.list_workers(context, limit=max(1, self._console.height - KEPT_LINES - 5))
        self._show(live, page_document(page, context.health), _status(context, mine))
        if _lacks_node(context, mine):  # the swarm may have begun meanwhile
            node_claims.allow_own(context, mine, UP)

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
        said = self._log.take(name, line)
        if not (quiet or self._console.is_terminal):
            self._console.print(Text(said))

    def _keep_the_rest(self) -> None:
        """Keep what was said as everything stopped."""
        while not self._lines.empty():
            name, line = self._lines.get()
            if line:
                self._log.take(name, line)

    def _note_once(self, state: str) -> None:
        """Print a state where it differs from the last one that was printed."""
        if state != self._last_state:
            self._note("up", state)
        self._last_state = state

    @contextmanager
    def _screen(self) -> Iterator[Live | None]:
        if not self._console.is_terminal:
            yield None
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield live

    def _show(self, live: Live | None, page: Document, status: WorkerStatus | None) -> None:
        self._note_once(f"this machine is {status.value if status else 'gone'}")
        if live:
            table = Group(*workers_views.worker_table(page), Text(""))
            tail = Text("Ctrl-C stops; in a second terminal: skyctl workers list", style="dim")
            used = len(self._console.render_lines(Group(table, tail)))
            lines = self._log.last(self._console, max(1, self._console.height - used - 1))
            live.update(Group(table, lines, tail), refresh=True)

    def _mark_gone(self, context: Context, mine: UUID) -> None:
        """Write that this machine's agent ended on purpose."""
        try:
            workers.note_stopped(context, mine, UP)
        except WorkerNotFound:
            return
        except SkyctlError as error:
            self._print(f"could not mark this machine as gone: {error.message}")

    def _conclude(self, context: Context) -> None:
        """Once our monitor has ended, look for it a last time."""
        with suppress(SkyctlError):
            Monitor(context, timedelta(seconds=1), Meters()).run_once()


def _status(context: Context, worker_id: UUID) -> WorkerStatus | None:
    """A worker's status; None where it was removed, or is let in no more."""
    try:
        worker = workers.get(context, worker_id)
    except WorkerNotFound:
        return None
    return None if worker.token_revoked_at else worker.status


def _lacks_node(context: Context, worker_id: UUID) -> bool:
    """Tell whether a worker claims a swarm node that does not count."""
    try:
        return workers.get(context, worker_id).swarm_node_trouble is not None
    except WorkerNotFound:
        return False


def _kept(path: Path, key: str) -> str:
    """The token that an earlier run kept; empty where there is none, or the file is damaged."""
    try:
        kept = json.loads(read_private(path))
        return str(kept[key])
    except (FileNotFoundError, ValueError, RecursionError, LookupError, TypeError):
        return ""


def _listener() -> socket.socket:
    """A socket that listens on the usual port, or on a free one where that is taken. It is ours, so that nobody takes
    the port while the API starts, or starts again."""
    try:
        return server.listen(HOST, DEFAULT_PORT)
    except Refused:
        return server.listen(HOST, 0)


def _answers(url: str) -> bool:
    """Return whether the API answers within the time of a refresh."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=REFRESH_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
