"""A probe on a network of services: what their users see while something happens to them."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.helpers import PATIENCE_SECONDS

from . import images
from .machines import Node

_PER_SECOND = 60
_PATIENCE_SECONDS = 10.0  # longer than a busy machine needs, and too little for an address that nobody has any more


@dataclass(frozen=True)
class Experience:
    """What one service answered: how often, how often not and why, the longest time between two answers, by whom, and
    how often another container had to be asked since the first refused."""

    answers: int
    failures: Mapping[str, int]
    longest_gap_seconds: float
    by: Mapping[str, int]
    others: int


class Probe:
    """Asks the services by name, `per_second` times a second over all, from a container of its own on a node; one that
    does not answer within `patience_seconds` has failed."""

    def __init__(
        self,
        node: Node,
        network: str,
        *names: str,
        per_second: float = _PER_SECOND,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._node = node
        self._container = node.run(
            "docker", "run", "--detach", "--network", network, images.IMAGE, "sleep", "100000"
        ).strip()
        pid = node.run("docker", "inspect", "--format", "{{.State.Pid}}", self._container).strip()
        asker = str(Path(__file__).with_name("asker.py"))
        program = [sys.executable, asker, str(per_second), str(patience_seconds), *names]
        command = node.command("nsenter", "--target", pid, "--net", "--", *program)
        self._asking = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # when this process ends, however that is, so does what it reads
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests
        )

    def ended(self) -> dict[str, Experience]:
        """Stop asking; what each service answered."""
        told, _ = self._asking.communicate(timeout=PATIENCE_SECONDS)
        return {name: Experience(**one) for name, one in json.loads(told).items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._asking.poll() is None:
            self._asking.kill()
            self._asking.communicate()
        self._node.run("docker", "rm", "--force", self._container)
