"""Several processes of `serve` on one port: one that ended is started again; where none can be, their parent ends as
well, so that its service starts all of them."""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

from uvicorn.config import Config
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from skyctl import settings
from skyctl.domain.errors import SkyctlError
from skyctl.host import interpreter, parent_process, runtime_dir, sd_notify, vital
from skyctl.host.runtime_dir import RuntimeFolder

MOST_FAILED_STARTS = 5
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
MOST_UNANSWERED = 60  # looks, two a second
BOUND_SECONDS = 60.0

log = logging.getLogger(__name__)


def serve(config: Config, listeners: list[socket.socket], publish: Callable[[], None]) -> None:
    """Serve from as many processes as the config says, until SIGTERM, SIGINT or SIGHUP. `publish` is called once their
    metrics have a folder.

    Raises SkyctlError where none can be started any more.
    """
    hangup = signal.SIG_IGN if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else _terminate
    folder = RuntimeFolder(runtime_dir.above(settings.load().data_dir), "metrics")
    folder.make()
    try:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.path)
        publish()
        interpreter.isolate_descendants()
        parent = _Parent(config, listeners, folder)
        signal.signal(signal.SIGHUP, hangup)  # its own handler would restart the others
        parent.run()
    finally:
        folder.remove()
    if parent.has_failed:
        raise SkyctlError("no process of it can be started any more", "its log says why")


def end_with_parent() -> None:
    """As one of several processes, end as soon as the parent has ended; what ends the parent, it tells us itself."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        parent_process.end_with(parent.pid, signal.SIGTERM)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


class _Child(Process):
    """One of them. It answers from a thread of its own whether its server has started."""

    serves = False
    started_at = 0.0
    _unanswered = 0

    def is_well(self) -> bool:
        """Tell whether it lives, and has answered lately; it is not waited for."""
        if not self.process.is_alive():
            return False
        try:
            if not self._unanswered:
                self.parent_conn.send(b"ping")
            self._unanswered += 1
            if self.parent_conn.poll(0):
                self.serves, self._unanswered = self.parent_conn.recv(), 0
        except (OSError, EOFError):
            return False
        return self._unanswered <= MOST_UNANSWERED


class _Parent(Multiprocess):
    """Their parent. What all of them need is there before each start."""

    def __init__(self, config: Config, listeners: list[socket.socket], folder: RuntimeFolder) -> None:
        super().__init__(config, sockets=listeners)
        self.has_failed = False
        self._children: list[_Child] = []
        self._folder = folder
        self._failed_starts = 0
        self._failed_at = self._start_at = 0.0
        self._vital = vital.Vital("processes", BOUND_SECONDS)

    def init_processes(self) -> None:
        """Start them."""
        self._vital.begin()
        vital.watch()
        self.keep_subprocess_alive()

    def keep_subprocess_alive(self) -> None:
        """Start what has ended again, after growing pauses where it ended before it served."""
        self._vital.goes_on()
        if self.should_exit.is_set():
            return
        for child in [child for child in self._children if not child.is_well()]:
            child.kill()
            child.join()
            self._children.remove(child)
            log.warning("action=process_ended pid=%s exit_code=%s", child.pid, child.exitcode)
            if not child.serves and child.started_at > self._failed_at:  # those of one start fail together
                self._note_failed_start()
        if any(child.serves for child in self._children):
            self._failed_starts = 0
        while len(self._children) < self.processes_num and time.monotonic() >= self._start_at:
            self._start()
        if len(self._children) == self.processes_num:
            self._vital.works()
        self.processes = list[Process](self._children)

    def terminate_all(self) -> None:
        """Tell the service manager of the end, and end them."""
        vital.stand_down()
        sd_notify.notify("STOPPING=1")
        super().terminate_all()

    def _start(self) -> None:
        try:
            self._folder.make()
            child = _Child(self.config, self.sockets)
            child.start()
            child.started_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever it is, those that serve go on
            self._vital.failed(error)
            self._note_failed_start()
        else:
            self._children.append(child)

    def _note_failed_start(self) -> None:
        self._failed_starts += 1
        self._failed_at = time.monotonic()
        self._start_at = self._failed_at + min(PAUSE_SECONDS * self._failed_starts, LONGEST_PAUSE_SECONDS)
        if self._failed_starts >= MOST_FAILED_STARTS and not any(child.serves for child in self._children):
            self.has_failed = True
            self.should_exit.set()
