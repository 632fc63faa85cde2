"""Running commands: what they print, or a failure that shows why."""

import subprocess

from tests.support.helpers import PATIENCE_SECONDS


class CommandFailed(Exception):
    """A command ended with another status than 0; the message holds what it wrote."""


def run(*argv: str, stdin: str | bytes = "", timeout_seconds: float = PATIENCE_SECONDS) -> str:
    """What the command wrote to stdout. Raises CommandFailed with all that it wrote, or TimeoutExpired."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(argv, input=given, capture_output=True, timeout=timeout_seconds)
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        errors = done.stderr.decode(errors="replace")
        raise CommandFailed(f"{' '.join(argv)} ended with {done.returncode}\n{output}{errors}".rstrip())
    return output


def attempt(*argv: str) -> bool:
    """Run a command whose failure only says that there was nothing to do; whether it succeeded."""
    return subprocess.run(argv, capture_output=True, timeout=PATIENCE_SECONDS).returncode == 0
