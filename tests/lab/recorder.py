"""Documents that are recorded: commands that were run on the lab, and what they printed.

With UPDATE_DOCUMENTS=1 a document is written anew; else the commands in it are compared with those that were run.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.helpers import eventually

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Recorder:
    """Runs commands of skyctl by `run`, and keeps what a person would have seen, with other words in place of some."""

    def __init__(self, document: Path, introduction: str, run: Run, instead: Mapping[str, str]) -> None:
        self._document, self._run, self._instead = document, run, instead
        self._parts = [introduction]

    def say(self, text: str) -> None:
        """A paragraph between the commands."""
        self._parts.append(f"\n{text}\n")

    def skyctl(self, *words: str, tolerates: int = 0, ends: int = 0) -> None:
        """Run a command of skyctl, again where it ends with the code that is tolerated, and keep it with all that it
        prints; it ends with `ends`."""

        def run() -> "subprocess.CompletedProcess[str] | None":
            tried = self._run(*words)
            return tried if tried.returncode == ends or tried.returncode != tolerates else None

        done = eventually(run)
        assert done
        assert done.returncode == ends, f"{words}: {done.stderr}"
        self.keep(f"skyctl {shlex.join(words)}", done.stderr + done.stdout)

    def keep(self, command: str, output: str) -> None:
        """Keep a command and its output."""
        for found, shown in self._instead.items():
            command, output = command.replace(found, shown), output.replace(found, shown)
        lines = [f"$ {command}", *(line.rstrip() for line in output.splitlines())]
        self._parts.append("\n" + "".join(f"    {line}".rstrip() + "\n" for line in lines))

    def check_document(self) -> None:
        """Write the document, or see that it shows the commands that were run, in their order."""
        text = "".join(self._parts)
        if os.environ.get("UPDATE_DOCUMENTS"):
            self._document.write_text(text)
        shown, ran = ([_general(line) for line in _commands(each)] for each in (self._document.read_text(), text))
        assert shown == ran, "with UPDATE_DOCUMENTS=1 this test writes it anew"


def _commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("    $ ")]


def _general(command: str) -> str:
    """A command without what differs from run to run: the name of the worker that it happened to be about, the address
    of a machine of the lab, the fingerprint of an authority."""
    for found, general in (
        (r"10\.78\.\d+\.\d+", "10.78.N.M"),
        ("web-[0-9]", "web-N"),
        ("[0-9A-F]{2}(?::[0-9A-F]{2}){31}", "XX"),
    ):
        command = re.sub(found, general, command)
    return command
