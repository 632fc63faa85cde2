"""What the Docker engine may do without ever delaying a heartbeat, or the end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.agent.peers import Agent, Engine, Manager

Start = Callable[..., Agent]


def test_a_host_without_docker_says_that_the_count_is_not_known(manager: Manager, start: Start) -> None:
    agent = start(apiUrl=manager.url)
    assert manager.heartbeats(3)[-1].body["containerCount"] == 0
    metadata = manager.registrations(1)[0].body["metadata"]
    assert metadata["containerCountKnown"] is False
    assert "dockerVersion" not in metadata
    agent.says("action=docker_away")


def test_an_engine_that_hangs_delays_neither_heartbeats_nor_the_end(
    manager: Manager, engine: Engine, start: Start
) -> None:
    engine.hanging = True
    agent = start(apiUrl=manager.url)
    heartbeats = manager.heartbeats(6)
    assert len(engine.requests.all()) == 1
    assert heartbeats[-1].arrived_at - heartbeats[0].arrived_at < 10  # the engine is given up after ten seconds
    assert manager.registrations(1)[0].body["metadata"]["containerCountKnown"] is False
    agent.ends_on(signal.SIGTERM)


def test_an_engine_that_goes_away_leaves_the_last_known_count(manager: Manager, engine: Engine, start: Start) -> None:
    agent = start(apiUrl=manager.url)
    assert manager.heartbeats(2)[-1].body["containerCount"] == 7
    engine.end()
    agent.says("action=docker_away")
    known, unknown = (request.body["metadata"] for request in manager.registrations(2))
    assert known.pop("containerCountKnown") is True
    assert unknown.pop("containerCountKnown") is False
    assert known == unknown
    assert manager.requests.all()[-1].body.get("containerCount", 7) == 7


def test_an_engine_that_begins_to_answer_is_counted(manager: Manager, start: Start, docker_socket: Path) -> None:
    agent = start(apiUrl=manager.url)
    manager.heartbeats(1)
    with Engine(docker_socket, ContainersRunning=3):
        agent.says("action=docker_answers")
        assert manager.requests.await_some(lambda request: request.body.get("containerCount") == 3)
    assert manager.registrations(2)[1].body["metadata"]["containerCountKnown"] is True


def test_the_disk_is_that_of_the_data_root(manager: Manager, engine: Engine, start: Start) -> None:
    engine.info["DockerRootDir"] = "/dev/shm"  # a file system of its own on every Linux
    start(apiUrl=manager.url)
    from_agent = manager.registrations(1)[0].body["capacity"]["diskGb"]
    assert from_agent == pytest.approx(_gib("/dev/shm"), abs=0.1)


def test_a_data_root_out_of_sight_is_that_of_the_nearest_folder_above(
    manager: Manager, engine: Engine, start: Start
) -> None:
    engine.info["DockerRootDir"] = "/dev/shm/of/another/machine"
    start(apiUrl=manager.url)
    assert manager.registrations(1)[0].body["capacity"]["diskGb"] == pytest.approx(_gib("/dev/shm"), abs=0.1)


def test_an_answer_without_a_count_is_no_count(manager: Manager, engine: Engine, start: Start) -> None:
    agent, good = start(apiUrl=manager.url), engine.info
    unusable: list[object] = [
        [],
        {},
        {"ContainersRunning": None},
        {"ContainersRunning": -1},
        {"ContainersRunning": True},
    ]
    for number, info in enumerate(unusable, start=1):
        engine.info = good
        agent.says("action=docker_answers", count=number)
        engine.info = info
        agent.says("action=docker_away", count=number)
    assert {heartbeat.body["containerCount"] for heartbeat in manager.heartbeats(9)} == {7}


def _gib(path: str) -> float:
    return psutil.disk_usage(path).total / 2**30
