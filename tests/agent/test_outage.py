"""A manager that was away for long: nothing piles up meanwhile, and those who return do so one after the other."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from heapq import heappop, heappush
from pathlib import Path

import pytest

from skyagent.backoff import jittered, retry_delay
from tests.agent.peers import TOKEN, WORKER_ID
from tests.agent.process import ROOT, agent_environ
from tests.support.helpers import PATIENCE_SECONDS

INTERVAL_SECONDS = 30.0
AWAY_FROM, AWAY_UNTIL, END = 300.0, 900.0, 1500.0


def requests(agents: int, seed: int) -> Iterator[tuple[float, bool]]:
    """When each request of a fleet reaches the manager, and whether it is there, by the agent's own rule of waiting."""
    chance = random.Random(seed)
    due = [(chance.random() * INTERVAL_SECONDS, number) for number in range(agents)]
    failures = [0] * agents
    due.sort()
    while due and due[0][0] < END:
        at, number = heappop(due)
        there = not AWAY_FROM <= at < AWAY_UNTIL
        yield at, there
        failures[number] = 0 if there else failures[number] + 1
        wait = jittered(INTERVAL_SECONDS, chance.random()) if there else retry_delay(failures[number], chance.random())
        heappush(due, (at + wait, number))


def highest_rate(times: list[float], window: float) -> float:
    """The most requests a second in any window of so many seconds."""
    return max(bisect_left(times, at + window) - number for number, at in enumerate(times)) / window


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("agents", "window"), [(200, 5.0), (5000, 1.0)])
def test_those_who_return_come_at_most_twice_as_often_as_they_beat(agents: int, window: float, seed: int) -> None:
    steady = agents / INTERVAL_SECONDS
    after = [at for at, there in requests(agents, seed) if there and at >= AWAY_UNTIL]
    assert highest_rate(after, window) <= 2 * steady
    assert len({at for at in after if at < AWAY_UNTIL + INTERVAL_SECONDS}) >= agents * 0.9


def test_nothing_grows_while_the_manager_is_away(tmp_path: Path) -> None:
    """Far more failed reports than an agent makes in ten minutes, each over a real socket."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        environ = agent_environ(
            SKYAGENT_API_URL=f"http://127.0.0.1:{closed.getsockname()[1]}",
            SKYAGENT_TOKEN=TOKEN,
            SKYAGENT_WORKER_ID=WORKER_ID,
            SKYAGENT_DOCKER_SOCKET=str(tmp_path / "docker.sock"),
            RUNTIME_DIRECTORY=str(tmp_path),
        )
        command = [sys.executable, "-m", "tests.agent.impatient"]
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
        )
    held = [int(line) for line in done.stdout.split()]
    assert len(held) == 8
    assert held[-1] - held[1] < 100_000, held
    assert '"failures": 799' in (tmp_path / "status.json").read_text()
