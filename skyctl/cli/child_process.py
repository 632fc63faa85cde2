"""A process that `skyctl up` keeps running."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import IO

from skyctl.host import interpreter, parent_process

STOP_SECONDS = 5.0
RESTART_SECONDS = 1.0

Line = tuple[str, str]


class Child:
    """A child process whose stderr arrives line by line in the queue, and that ends when this process ends.

    It inherits the environment without the SKYAGENT_ variables, since they would override the file that our agent is
    given. `keeping`: file descriptors that it inherits as well.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        lines: "queue.SimpleQueue[Line]",
        keeping: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._command = interpreter.command(*command)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SKYAGENT_")}
        self._environment = inherited | environment
        self._keeping = keeping
        self._lines = lines
        self._restart_at = 0.0
        self.start()

    def start(self) -> None:
        """Start the process. Raises OSError, RuntimeError where the system has nothing left to do it with."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=self._keeping,
            preexec_fn=partial(parent_process.end_with, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one call that takes no lock
        )
        try:
            self._reader = threading.Thread(target=self._read, args=[self._process.stderr], daemon=True)
            self._reader.start()
        except RuntimeError:  # nobody would read what it says, and it would wait for that
            self.stop()
            raise

    def restart_if_ended(self) -> None:
        """Start it again a moment after it ended by itself."""
        if self._process.poll() is None:
            return
        if not self._restart_at:
            self._lines.put((self.name, f"ended with exit code {self._process.returncode}; starts again"))
            self._restart_at = time.monotonic() + RESTART_SECONDS
        elif time.monotonic() >= self._restart_at:
            self._restart_at = time.monotonic() + RESTART_SECONDS  # of the next try, where this one fails
            self.start()
            self._restart_at = 0.0

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader.is_alive():  # the last that it said may be what matters
            self._reader.join(RESTART_SECONDS)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put((self.name, line.rstrip()))
