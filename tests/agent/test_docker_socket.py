"""What the Docker engine may do without ever delaying a heartbeat, or the end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.agent.peers import Engine, Manager
from tests.agent.process import Agent

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
    manager.heartbeats(6)
    assert engine.requests.all()
    assert "no answer yet" in agent.says("action=docker_away")[0]
    assert manager.registrations(1)[0].body["metadata"]["containerCountKnown"] is False
    agent.ends_on(signal.SIGTERM)


def test_an_engine_that_goes_away_leaves_the_last_known_count(manager: Manager, engine: Engine, start: Start) -> None:
    start(apiUrl=manager.url)
    known = manager.registration_with(containerCountKnown=True).body["metadata"]
    engine.end()
    unknown = manager.registration_with(containerCountKnown=False, dockerVersion="28.0.1")
    assert unknown.body["metadata"] | {"clock": known["clock"]} == {**known, "containerCountKnown": False}
    told = len(manager.requests.all())
    later = manager.requests.await_some(lambda _: True, told + 2)[told:]
    assert [request.body["containerCount"] for request in later] == [7, 7]


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
    registration = manager.registration_with(containerCountKnown=True)
    assert registration.body["capacity"]["diskGb"] == pytest.approx(_gib("/dev/shm"), abs=0.1)


def test_a_data_root_out_of_sight_is_that_of_the_nearest_folder_above(
    manager: Manager, engine: Engine, start: Start
) -> None:
    engine.info["DockerRootDir"] = "/dev/shm/of/another/machine"
    start(apiUrl=manager.url)
    registration = manager.registration_with(containerCountKnown=True)
    assert registration.body["capacity"]["diskGb"] == pytest.approx(_gib("/dev/shm"), abs=0.1)


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
        agent.says("action=docker_away containers=7", count=number)


def _gib(path: str) -> float:
    return psutil.disk_usage(path).total / 2**30
