"""The logs of the long-running commands."""

import logging
import os

from skyctl.domain.text import without_secrets


class _Formatter(logging.Formatter):
    """Lines without passwords, whatever a library wrote into its error or traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return "\n".join(without_secrets(line) for line in super().format(record).split("\n"))


def to_stderr() -> None:
    """Log to stderr: one line each, with the time unless the journal adds its own."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(f"{stamp}%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
