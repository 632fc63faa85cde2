"""The logs of the long-running commands."""

import logging
import os

from skyctl.domain.text import printable, without_secrets


class Line(logging.Formatter):
    """Makes a record one line, and each line of a traceback one; whatever others wrote of it is escaped, and no
    password shown."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the record's own line."""
        return _shown(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - the library's name
        """Return the traceback."""
        return "\n".join(map(_shown, super().formatException(ei).split("\n")))  # type: ignore[arg-type]


def _shown(line: str) -> str:
    return printable(without_secrets(line))


def to_stderr() -> None:
    """Log to stderr: one line each, with the time unless the journal adds its own."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    handler = logging.StreamHandler()
    handler.setFormatter(Line(f"{stamp}%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
