"""The agent as a real process, and what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.agent.peers import DEADLINE_SECONDS, Journal

ROOT = Path(__file__).parents[2]


class Agent:
    """The real process, and what it says on stderr."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: Journal[str] = Journal()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.add(line.rstrip("\n"))

    def says(self, text: str, count: int = 1) -> list[str]:
        """The first `count` lines of log with this text."""
        found = self.lines.await_some(lambda line: text in line, count)
        assert len(found) == count, f"{text}: {self.lines.all()}"
        return found

    def exit_code(self) -> int:
        """The exit code, once the process has ended and all that it said was read."""
        code = self.process.wait(DEADLINE_SECONDS)
        self._reading.join()
        return code

    def ends_on(self, number: signal.Signals) -> None:
        """Send the signal and see the process end with exit code 0, before a request that hangs is given up."""
        before = len(self.lines.all())
        self.process.send_signal(number)
        assert self.exit_code() == 0
        assert "timed out" not in "".join(self.lines.all()[before:])

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reading.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


def agent_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "skyagent", *arguments]


def agent_environ(**variables: str) -> dict[str, str]:
    """An environment with nothing of the one who runs the tests but the path."""
    return {"PATH": os.environ["PATH"], **variables}
