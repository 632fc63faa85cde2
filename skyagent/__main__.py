"""`skyagent`, and `python -m skyagent`: the command line, the log, and how the process ends; `skyagent status` beside
it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from skyagent import __version__, status
from skyagent.errors import ConfigError
from skyagent.settings import VARIABLES, load
from skyagent.systemd import Supervisor

log = logging.getLogger("skyagent")

ENDING = (signal.SIGTERM, signal.SIGINT)
# sd-daemon(3): journald takes the priority from the front of the line.
PRIORITIES = {"DEBUG": "<7>", "INFO": "<6>", "WARNING": "<4>", "ERROR": "<3>"}


class Parser(argparse.ArgumentParser):
    """The command line, whose errors look like those of the configuration."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(message, "see skyagent --help")


class JournalFormatter(logging.Formatter):
    """Lines for journald, which knows the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the priority in front of the line."""
        return PRIORITIES[record.levelname] + super().format(record)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until a signal ends the process (exit code 0); returns 2 for a configuration that cannot be used.

    `status` prints what it last sent and got: 0, or 1 where there is nothing to print.
    """
    if sys.stderr is None:  # it was closed
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    supervisor = Supervisor(os.environ)
    try:
        options = _parser().parse_args(arguments)
        if options.command == "status":
            status.show(os.environ, as_json=options.output == "json")
            return 0
        _log_to_stderr(options.verbose)
        _end_on_signals(supervisor)
        settings = load(options.config, os.environ)
        # Not before: a command line or a configuration that is wrong is said without loading the HTTP library.
        from skyagent.agent import Agent

        Agent(settings, supervisor, os.environ).run()
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    fields = [f"  {field:20}{variable}" for field, variable in VARIABLES.items()]
    parser = Parser(
        prog="skyagent",
        description="Report this host's load to skyctl, until a signal ends it.",
        epilog="fields of FILE, and the variables that stand over them:\n" + "\n".join(fields),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, one JSON object")
    parser.add_argument("--verbose", action="store_true", help="log every heartbeat")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", title="commands", metavar="")
    shown = commands.add_parser("status", help="print what the agent on this host last sent and got")
    shown.add_argument("-o", "--output", choices=["text", "json"], default="text", help="json for programs")
    return parser


def _log_to_stderr(verbose: bool) -> None:
    """Log this package alone: the HTTP library's own lines are for those who debug it."""
    handler = logging.StreamHandler()
    if _stderr_is_journal():
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


def _stderr_is_journal() -> bool:
    """Tell whether journald reads our stderr: JOURNAL_STREAM alone may be inherited by one whose stderr goes
    elsewhere."""
    status = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _end_on_signals(supervisor: Supervisor) -> None:
    """From here on SIGTERM and SIGINT reach one thread, which waits for nothing else."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    threading.Thread(target=_end, args=(supervisor,), name="signals", daemon=True).start()


def _end(supervisor: Supervisor) -> NoReturn:
    """End the process at the first signal.

    At once, from whatever it does: a name look-up or a disk that hangs cannot be interrupted, and nothing here needs
    closing.
    """
    name = signal.Signals(signal.sigwait(ENDING)).name
    supervisor.notify("STOPPING=1", f"STATUS=Ended by {name}")
    log.info("action=stopped signal=%s", name)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
