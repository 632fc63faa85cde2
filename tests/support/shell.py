"""An interactive shell on a terminal of its own, typed into as a person does."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from tests.support.helpers import PATIENCE_SECONDS

PROMPT = "typehere> "
START = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": [
        "fish",
        "--no-config",
        "--interactive",
        "--init-command",
        f"function fish_prompt; echo -n '{PROMPT}'; end",
    ],
}


class Shell:
    """A shell in a folder. Each line that is typed is followed by a mark, and is over when that is printed."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
        self._popen = subprocess.Popen(
            START[name],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment | {"TERM": "xterm", "HOME": str(folder), "PS1": PROMPT, "HISTFILE": "/dev/null"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - takes no lock
            start_new_session=True,
        )
        os.close(slave)
        self._seen, self._marks = "", 0
        self._until(PROMPT)

    def type(self, line: str) -> str:
        """Type a line, which may hold tabs, and Enter; return what the terminal was sent until it was over."""
        self._marks += 1
        os.write(self._master, f"{line}; echo ma''rk-{self._marks}-\r".encode())
        shown = self._until(f"mark-{self._marks}-")
        self._until(PROMPT)
        return shown

    def close(self) -> None:
        """Hang up."""
        os.close(self._master)
        self._popen.kill()
        self._popen.wait()

    def _until(self, text: str) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self._seen!r}"
            if select.select([self._master], [], [], left)[0]:
                with contextlib.suppress(OSError):  # the shell has ended: the deadline of nobody
                    self._seen += os.read(self._master, 65_536).decode(errors="replace")
        shown, _, self._seen = self._seen.partition(text)
        return shown
