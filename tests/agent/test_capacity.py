"""A capacity that drifts is no news: in a mount namespace in which the machine's memory is the test's to say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.peers import Manager, Request
from tests.agent.process import Agent

Start = Callable[..., Agent]
SCENE = 'mount --bind "$1" /proc/meminfo && shift && exec "$@"'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace of its own")


def say_memory(path: Path, megabytes: int) -> None:
    """Write in place, and at once, what is always as long."""
    names = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached")
    with path.open("r+b", buffering=0) as file:
        file.write("".join(f"{name}: {megabytes * 1024:12} kB\n" for name in names).encode())


def memory_of(request: Request) -> object:
    return (request.body or {}).get("capacity", {}).get("memoryMb")


def test_only_a_capacity_that_changed_by_some_percent_is_news(manager: Manager, start: Start, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.touch()
    say_memory(meminfo, 4000)
    start(apiUrl=manager.url, under=("unshare", "--mount", "sh", "-c", SCENE, "sh", str(meminfo)))
    manager.heartbeats(1)
    for drifting in (4040, 3960, 4100, 3900):
        say_memory(meminfo, drifting)
        heard = sum(request.path.endswith("/heartbeat") for request in manager.requests.all())
        manager.heartbeats(heard + 2)
    say_memory(meminfo, 3600)
    assert manager.requests.await_some(lambda request: memory_of(request) == 3600)
    assert [memory_of(request) for request in manager.requests.all() if memory_of(request)] == [4000, 3600]
