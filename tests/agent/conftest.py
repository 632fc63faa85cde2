"""Peers and agents for one test each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from skyctl.host.release_key import ReleaseKey
from tests.agent.peers import TOKEN, Engine, Listener, Manager
from tests.agent.process import Agent, agent_command, agent_environ
from tests.agent.unit import Unit

MakeUnit = Callable[..., Unit]


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


@pytest.fixture
def docker_socket(tmp_path: Path) -> Path:
    """Where the agent looks for a Docker engine; there is none unless the test asks for one."""
    return tmp_path / "docker.sock"


@pytest.fixture
def engine(docker_socket: Path) -> Iterator[Engine]:
    with Engine(docker_socket) as engine:
        yield engine


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(str(tmp_path / "notify.sock"))
    yield listener
    listener.end()


@pytest.fixture
def write_config(tmp_path: Path, docker_socket: Path) -> Callable[..., Path]:
    """Writes a configuration file, with a token and the socket of the test unless told otherwise."""

    def write(**fields: Any) -> Path:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"authToken": TOKEN, "dockerSocket": str(docker_socket), **fields}))
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def launch() -> Iterator[Callable[..., Agent]]:
    """Starts an agent by its command and environment; what still runs after the test is killed."""
    agents: list[Agent] = []

    def launch(command: Sequence[str], environ: Mapping[str, str]) -> Agent:
        agents.append(Agent(command, environ))
        return agents[-1]

    yield launch
    for agent in agents:
        agent.clean_up()


@pytest.fixture
def start(launch: Callable[..., Agent], write_config: Callable[..., Path]) -> Callable[..., Agent]:
    """Starts an agent: fields of its configuration by name, `environ` and what stands before the command besides."""

    def start(
        *arguments: str, environ: Mapping[str, str] | None = None, under: Sequence[str] = (), **fields: Any
    ) -> Agent:
        command = [*under, *agent_command("--config", str(write_config(**fields)), *arguments)]
        return launch(command, agent_environ(**(environ or {})))

    return start


@pytest.fixture
def make_unit(
    tmp_path: Path, manager: Manager, write_config: Callable[..., Path], release_key: ReleaseKey
) -> Iterator[MakeUnit]:
    """Makes the agent as its unit runs it; it trusts the key by which the manager of the test signs."""
    manager.release_key = release_key
    units: list[Unit] = []

    def make(**options: Any) -> Unit:
        units.append(Unit(tmp_path, write_config(apiUrl=manager.url), release_key, **options))
        return units[-1]

    yield make
    for unit in units:
        unit.end()
