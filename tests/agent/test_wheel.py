"""The agent installs on its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.agent.peers import Manager
from tests.agent.process import ROOT, Agent, agent_environ

NEEDED = {"httpcore", "psutil", "skyagent"}
NEEDED_BY_HTTPCORE = {"certifi", "h11"}
PART_OF_A_BARE_ENVIRONMENT = {"pip", "setuptools"}


def test_the_wheel_runs_where_nothing_of_the_manager_is(
    manager: Manager, tmp_path: Path, launch: Callable[..., Agent], write_config: Callable[..., Path]
) -> None:
    bare = tmp_path / "bare"
    _run(sys.executable, "-m", "venv", str(bare))
    pip = str(bare / "bin" / "pip")
    _run(pip, "--quiet", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT / "skyagent"))
    [wheel] = tmp_path.glob("skyagent-*-py3-none-any.whl")
    _run(pip, "--quiet", "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    installed = {entry["name"].lower().replace("_", "-") for entry in json.loads(_run(pip, "list", "--format=json"))}
    assert installed >= NEEDED
    assert installed <= NEEDED | NEEDED_BY_HTTPCORE | PART_OF_A_BARE_ENVIRONMENT

    agent = launch([str(bare / "bin" / "skyagent"), "--config", str(write_config(apiUrl=manager.url))], agent_environ())
    manager.heartbeats(1)
    agent.says("action=accepted")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_environ(), cwd="/").stdout


def _environ() -> dict[str, str]:
    """The environment without the paths by which an interpreter would see the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
