"""What the parts of `skyctl up` say: kept in a file, and the last of it on the screen, in whole lines."""

import logging
import queue
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.text import Text

from skyctl.cli.child_process import Line
from skyctl.domain.errors import SkyctlError
from skyctl.domain.text import printable, without_secrets
from skyctl.host.bounded_log import BoundedLog

NAME = "up.log"
MOST_LINES = 200


class Log(logging.Handler):
    """Puts what this process itself logs among the lines of its children."""

    def __init__(self, lines: "queue.SimpleQueue[Line]") -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line."""
        self._lines.put(("up", record.getMessage()))


class UpLog:
    """The lines of all parts, in the data folder's log file and on the screen. Raises OSError, Refused where the file
    cannot be opened."""

    def __init__(self, folder: Path) -> None:
        self._file = BoundedLog(folder, NAME)
        self._recent: deque[str] = deque(maxlen=MOST_LINES)
        self._is_kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    def take(self, name: str, line: str) -> str:
        """Keep a line of a part, and return it as people see it. Where the file cannot take it, the screen says so, and
        nothing ends of it."""
        said = printable(without_secrets(f"{name}: {line}"))
        self._recent.append(said)
        try:
            self._file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {said}")
            self._is_kept = True
        except (OSError, SkyctlError) as error:
            if self._is_kept:
                self._recent.append(f"up: {NAME} takes no lines: {printable(error)}")
            self._is_kept = False
        return said

    def last(self, console: Console, rows: int) -> Text:
        """Return the last lines that fit into so many rows, each folded and whole; of one that is longer, its end."""
        shown: list[Text] = []
        for line in reversed(self._recent):
            folded = Text(line, style="dim").wrap(console, console.width, overflow="fold")
            if shown and len(shown) + len(folded) > rows:
                break
            shown = [*folded, *shown]
        return Text("\n").join(shown[-rows:])
