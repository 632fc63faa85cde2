"""A figure that cannot be measured is never reported as nothing. The kernel's files are hidden in a mount namespace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.peers import Manager
from tests.agent.process import Agent

Start = Callable[..., Agent]
HIDE = 'mount --bind "$1" /proc/meminfo && shift && exec "$@"'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace of its own")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty"
    path.touch()
    return path


def test_without_a_figure_there_is_no_report(manager: Manager, start: Start, empty: Path) -> None:
    agent = start("--verbose", apiUrl=manager.url, under=("unshare", "--mount", "sh", "-c", HIDE, "sh", str(empty)))
    agent.says("action=unmeasured", count=2)
    assert manager.requests.all() == []


def test_a_figure_that_fails_later_stands_as_last_known(manager: Manager, start: Start, empty: Path) -> None:
    agent = start(apiUrl=manager.url, under=("unshare", "--mount"))
    manager.heartbeats(1)
    _in_mounts_of(agent, "mount", "--bind", str(empty), "/proc/meminfo")
    [line] = agent.says("metric=memory")
    assert "action=metric_failed" in line
    told = len(manager.requests.all())
    last = manager.requests.await_some(lambda _: True, told + 2)[-1]
    assert f"percent={last.body['memoryPercent']})" in line
    _in_mounts_of(agent, "umount", "/proc/meminfo")
    agent.says("action=metric_back metric=memory")


def _in_mounts_of(agent: Agent, *command: str) -> None:
    subprocess.run(["nsenter", "--target", str(agent.process.pid), "--mount", *command], check=True)
