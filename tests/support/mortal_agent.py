"""The agent, killed at one moment of taking a new token: `python -m tests.mortal_agent MOMENT ...`, the rest as
skyagent has it."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyagent import files, tokens
from skyagent.__main__ import main
from skyagent.client import Manager

MOMENTS = ("handed over", "half written", "written", "kept", "used")
moment = ""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def replace_token_file(path: Path, target: Path, real: Callable[..., Any] = Path.replace) -> Any:
    if target.name != tokens.FILE:
        return real(path, target)
    if moment == "written":
        die()
    done = real(path, target)
    if moment == "kept":
        die()
    return done


def heartbeat(self: Manager, load: dict[str, object], real: Callable[..., Any] = Manager.heartbeat) -> Any:
    answer = real(self, load)
    if moment == "used" and self._tokens.previous:
        die()
    return answer


if __name__ == "__main__":
    moment = sys.argv[1]
    if moment == "handed over":
        files.keep = die  # type: ignore[assignment]
    if moment == "half written":
        os.fsync = die  # type: ignore[assignment]
    Path.replace = replace_token_file  # type: ignore[assignment,method-assign]
    Manager.heartbeat = heartbeat  # type: ignore[method-assign]
    sys.exit(main(sys.argv[2:]))
