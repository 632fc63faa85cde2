"""skyctl within the test's own process: its entry, streams and exit code, without the second that a process takes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skyctl.cli import app
from skyctl.host import signals
from skyctl.operations.shared.context import Engine


@dataclass
class InProcess:
    """Runs skyctl as a person without a terminal would, against one database; with a fake engine where one is given.
    Signals come back to the tests afterwards."""

    environment: dict[str, str] = field(default_factory=dict)
    engine: Engine | None = None

    def __call__(self, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        with (
            pytest.MonkeyPatch.context() as patch,
            Path(os.devnull).open() as nothing,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            patch.setenv("TZ", os.environ.get("TZ", "UTC"))  # a command that sets it leaves nothing behind
            for name, value in (self.environment | environment).items():
                patch.setenv(name, value)
            time.tzset()
            if self.engine:
                patch.setattr("skyctl.swarm.SwarmEngine", lambda *_, **__: self.engine)
            patch.setattr(sys, "argv", ["skyctl", *args])
            for name, stream in (("stdin", nothing), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, stream)
            handlers = {number: signal.getsignal(number) for number in signals.ENDING}
            with pytest.raises(SystemExit) as ended:
                app.main()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # as its end closes what a process leaves open
                for number, handler in handlers.items():
                    signal.signal(number, handler)
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read())
        time.tzset()
        return subprocess.CompletedProcess(args, int(ended.value.code or 0), *texts)
