"""The agent as its unit runs it: installed in an environment of its own, launched, and started again whenever it
ends."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import signal
import subprocess
import sys
import sysconfig
import tarfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skyctl.host.release_key import ReleaseKey
from skyctl.installer import agent_archive
from tests.agent.process import Agent, agent_environ
from tests.support.helpers import PATIENCE_SECONDS, eventually

RESTART_SECONDS = 0.05


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Files as a manager hands an agent out."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(made.getvalue(), mtime=0)


def linked(name: str, target: str) -> bytes:
    """An archive that holds a symbolic link alone."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, target
        tar.addfile(member)
    return made.getvalue()


def files_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def newer(**changed: str) -> bytes:
    """The agent of this checkout as version 9.9.9, with other modules in place of its own."""
    files = files_of(agent_archive()) | {"skyagent/__init__.py": b'__version__ = "9.9.9"\n'}
    return archive_of(files | {f"skyagent/{name}.py": source.encode() for name, source in changed.items()})


class Unit:
    """What systemd is to the agent, as far as its releases go."""

    def __init__(
        self, folder: Path, config: Path, release_key: ReleaseKey | None = None, trial_seconds: float = 60
    ) -> None:
        self.state, self._runtime, self._venv = folder / "state", folder / "runtime", folder / "venv"
        for each in (self.state, self._runtime):
            each.mkdir()
        self.install_sha256 = self.install(agent_archive())
        self.pinned = folder / "release.pub"
        if release_key:
            self.pin(release_key.public())
        self._config, self._trial_seconds = config, trial_seconds
        self._agents: list[Agent] = []
        self._over = threading.Event()
        self._running = threading.Thread(target=self._run)

    def install(self, archive: bytes) -> str:
        """Do what the install script does: an environment with the agent, and what it was made from noted in it."""
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", self._venv], check=True, timeout=PATIENCE_SECONDS
        )
        packages = next(self._venv.glob("lib/python*/site-packages"))
        (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for name, content in files_of(archive).items():
            (packages / name).parent.mkdir(exist_ok=True)
            (packages / name).write_bytes(content)
        sha256 = hashlib.sha256(archive).hexdigest()
        (self._venv / "release").write_text(f"skyagent {sha256} httpx 0 psutil 0\n")
        return sha256

    def pin(self, key: str) -> None:
        """Pin a key of releases, as an install script does."""
        self.pinned.write_text(f"{key}\n")

    def start(self, under: Sequence[str] = ()) -> None:
        command = [str(self._venv / "bin/python"), "-I", "-m", "skyagent.launch", "--config", str(self._config)]
        folders = {"STATE_DIRECTORY": str(self.state), "RUNTIME_DIRECTORY": str(self._runtime)}
        self._environ = agent_environ(
            **folders, SKYAGENT_TRIAL_SECONDS=str(self._trial_seconds), SKYAGENT_RELEASE_KEY=str(self.pinned)
        )
        self._command = [*under, *command]
        self._running.start()

    def _run(self) -> None:
        while not self._over.is_set():
            agent = Agent(self._command, self._environ)
            self._agents.append(agent)
            agent.process.wait()
            self._over.wait(RESTART_SECONDS)

    @property
    def starts(self) -> int:
        return len(self._agents)

    def kill(self) -> None:
        """Kill -9 what runs; returns when it runs again."""
        before = self.starts
        self._agents[-1].process.send_signal(signal.SIGKILL)
        eventually(lambda: self.starts > before)

    def lines(self) -> list[str]:
        """What every process of it has said."""
        return [line for agent in list(self._agents) for line in agent.lines.all()]

    def says(self, text: str) -> str:
        """The first line of log with this text, whichever process says it."""
        return eventually(lambda: next((line for line in self.lines() if text in line), ""))

    def releases(self) -> dict[str, Any]:
        """What is noted of releases."""
        found: dict[str, Any] = json.loads((self.state / "releases.json").read_text())
        return found

    def status(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`skyagent status` of this host."""
        command = [str(self._venv / "bin/python"), "-I", "-m", "skyagent", "status", *arguments]
        environ = agent_environ(RUNTIME_DIRECTORY=str(self._runtime))
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS)

    def end(self) -> None:
        self._over.set()
        for agent in self._agents:
            if agent.process.poll() is None:
                agent.process.kill()
        self._running.join()
        for agent in self._agents:
            agent.clean_up()
