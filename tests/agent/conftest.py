"""Peers and agents for one test each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.peers import TOKEN, Agent, Engine, Listener, Manager, agent_command, agent_environ


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
def start(write_config: Callable[..., Path]) -> Iterator[Callable[..., Agent]]:
    """Starts an agent: fields of its configuration by name, `environ` and what stands before the command besides."""
    agents: list[Agent] = []

    def start(
        *arguments: str, environ: dict[str, str] | None = None, under: tuple[str, ...] = (), **fields: Any
    ) -> Agent:
        command = [*under, *agent_command("--config", str(write_config(**fields)), *arguments)]
        agents.append(Agent(command, agent_environ(**(environ or {}))))
        return agents[-1]

    yield start
    for agent in agents:
        agent.clean_up()
