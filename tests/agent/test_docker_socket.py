"""What the Docker engine may do without ever delaying a heartbeat, or the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.agent.peers import Engine, Manager
from tests.agent.process import Agent

Start = Callable[..., Agent]


def test_a_host_without_docker_says_that_the_count_is_not_known(manager: Manager, start: Start) -> None:
    agent = start(apiUrl=manager.url)
    last = manager.heartbeats(3)[-1].body
    assert (last["containerCount"], last["engineAnswers"]) == (0, False)
    trouble = "ConnectError: [Errno 2] No such file or directory"
    metadata = manager.registration_with(engineTrouble=trouble).body["metadata"]
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
    words = manager.requests.await_some(lambda request: request.body.get("engineAnswers") is False, 3)
    silent = [word.body["engineSilentSeconds"] for word in words]
    assert silent == sorted(silent)
    assert silent[0] > 0
    agent.ends_on(signal.SIGTERM)


def _trouble(registration: dict[str, Any]) -> str:
    return str(registration["metadata"].get("engineTrouble"))


def test_an_engine_that_goes_away_leaves_the_last_known_count(manager: Manager, engine: Engine, start: Start) -> None:
    start(apiUrl=manager.url)
    known = manager.registration_with(containerCountKnown=True).body["metadata"]
    engine.end()
    [unknown] = manager.requests.await_some(  # a look that the end meets is told first
        lambda request: request.path.endswith("/register") and "No such file" in _trouble(request.body)
    )
    said = unknown.body["metadata"]
    del said["engineTrouble"]
    assert said | {"clock": known["clock"]} == {**known, "containerCountKnown": False}
    told = len(manager.requests.all())
    later = manager.requests.await_some(lambda _: True, told + 2)[told:]
    assert [(request.body["containerCount"], request.body["engineAnswers"]) for request in later] == [(7, False)] * 2


def test_an_engine_that_begins_to_answer_is_counted(manager: Manager, start: Start, docker_socket: Path) -> None:
    agent = start(apiUrl=manager.url)
    manager.heartbeats(1)
    with Engine(docker_socket, ContainersRunning=3):
        agent.says("action=docker_answers")
        assert manager.requests.await_some(lambda request: request.body.get("containerCount") == 3)
        assert manager.requests.await_some(lambda request: request.body.get("engineAnswers") is True)
    assert manager.registrations(2)[1].body["metadata"]["containerCountKnown"] is True


def test_a_socket_that_was_taken_away_is_missed_though_its_engine_is_there(
    manager: Manager, engine: Engine, start: Start, docker_socket: Path
) -> None:
    """No connection from before is asked: another engine may be behind the socket by now."""
    start(apiUrl=manager.url)
    manager.registration_with(containerCountKnown=True)
    docker_socket.rename(docker_socket.with_suffix(".away"))
    assert manager.requests.await_some(lambda request: request.body.get("engineAnswers") is False)
    assert engine.requests.all()


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


def test_podman_behind_dockers_socket_is_called_so(manager: Manager, engine: Engine, start: Start) -> None:
    """A stand-in that answers what Podman's service does to Docker's clients."""
    engine.info |= {"ServerVersion": "5.4.2", "BuildahVersion": "1.39.3"}
    start(apiUrl=manager.url)
    assert manager.registration_with(containerCountKnown=True).body["metadata"]["engine"] == "podman"


def test_whoever_may_no_longer_ask_the_engine_ends_for_its_unit_to_start_it_again(
    manager: Manager, engine: Engine, start: Start, docker_socket: Path
) -> None:
    """As when Docker's group was made anew: the socket is there, and of another group than the process."""
    without_override = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    agent = start(apiUrl=manager.url, under=without_override)
    agent.says("action=docker_answers")
    engine.end()
    before = os.umask(0o777)
    with Engine(docker_socket):
        os.umask(before)
        agent.says("action=engine_denied")
        assert agent.exit_code() == 1
        again = start(apiUrl=manager.url, under=without_override)
        told = len(manager.requests.all())
        manager.requests.await_some(lambda _: True, told + 4)
        assert again.process.poll() is None, "it goes on where the next one may not ask it, either"


def _gib(path: str) -> float:
    return psutil.disk_usage(path).total / 2**30
