"""The logs of the long-running commands."""

import logging
import os


def to_stderr() -> None:
    """Log to stderr: one line each, with the time unless the journal adds its own."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(format=f"{stamp}%(levelname)s %(message)s", level=logging.INFO)
