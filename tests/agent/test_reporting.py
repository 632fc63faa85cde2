"""What the agent reports, and when."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.agent.peers import DROP, TOKEN, Answer, Engine, Manager, Request, failing
from tests.agent.process import Agent

Start = Callable[..., Agent]


def test_it_registers_with_what_the_host_is_and_then_beats(manager: Manager, engine: Engine, start: Start) -> None:
    engine.info["Swarm"] = {"NodeID": "n0d3"}
    start(apiUrl=manager.url)
    manager.heartbeats(1)
    assert [_kind(request) for request in manager.requests.all()[:2]] == ["register", "heartbeat"]
    body = manager.registration_with(containerCountKnown=True).body
    assert body["hostname"] == socket.gethostname()
    assert body["ipAddress"] == "127.0.0.1"
    assert body["capacity"] == {
        "cpuCores": psutil.cpu_count(),
        "memoryMb": psutil.virtual_memory().total // 2**20,
        "diskGb": pytest.approx(psutil.disk_usage("/").total / 2**30, abs=0.1),
    }
    metadata = body["metadata"]
    assert metadata["kernelVersion"] == os.uname().release
    assert metadata["architecture"] == os.uname().machine
    assert metadata["bootId"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert metadata["osVersion"]
    assert metadata["agentVersion"]
    assert metadata["dockerVersion"] == "28.0.1"
    assert metadata["swarmNodeId"] == "n0d3"


@pytest.mark.usefixtures("engine")
def test_the_load_is_the_real_one(manager: Manager, start: Start) -> None:
    start(apiUrl=manager.url)
    [counted] = manager.requests.await_some(lambda request: request.body.get("containerCount") == 7)
    body = counted.body
    assert body.keys() - {"imageVolumes"} == {
        "cpuPercent",
        "memoryPercent",
        "diskPercent",
        "containerCount",
        "engineAnswers",
    }
    assert body["engineAnswers"] is True
    assert body["memoryPercent"] == pytest.approx(psutil.virtual_memory().percent, abs=15)
    assert body["diskPercent"] == pytest.approx(psutil.disk_usage("/").percent, abs=3)


def test_cpu_use_is_the_mean_over_the_interval(manager: Manager, start: Start) -> None:
    manager.next_seconds = 1
    start(apiUrl=manager.url)
    manager.heartbeats(1)
    loop = ["sh", "-c", "echo; while :; do :; done"]
    with subprocess.Popen(loop, stdout=subprocess.PIPE) as busy:  # one core, between two heartbeats at least
        try:
            assert busy.stdout
            busy.stdout.readline()
            heard = sum(_kind(request) == "heartbeat" for request in manager.requests.all())
            mean = manager.heartbeats(heard + 2)[-1].body["cpuPercent"]
        finally:
            busy.kill()
    assert 50 / (os.cpu_count() or 1) <= mean <= 100


def test_the_answer_sets_the_interval(manager: Manager, start: Start) -> None:
    manager.next_seconds = 1
    start(apiUrl=manager.url, heartbeatInterval=900)
    times = [heartbeat.arrived_at for heartbeat in manager.heartbeats(4)]
    assert all(later - earlier >= 0.85 for earlier, later in pairwise(times))


def test_an_answer_without_a_sane_interval_leaves_the_configured_one(manager: Manager, start: Start) -> None:
    nonsense: list[object] = [None, 0, -1, 1e9, "2", True]
    for seconds in nonsense:
        manager.ready["heartbeat"].append(Answer(200, {"success": True, "nextHeartbeatSeconds": seconds}))
    start(apiUrl=manager.url, heartbeatInterval=0.3)
    times = [heartbeat.arrived_at for heartbeat in manager.heartbeats(len(nonsense) + 1)]
    assert all(later - earlier >= 0.25 for earlier, later in pairwise(times))


def test_a_worker_that_the_manager_forgot_registers_again(manager: Manager, start: Start) -> None:
    manager.ready["heartbeat"].extend([manager.accepting(), failing(404, "WORKER_NOT_FOUND")])
    agent = start(apiUrl=manager.url)
    manager.heartbeats(3)
    assert [_kind(request) for request in manager.requests.all()[:5]] == [
        "register",
        "heartbeat",
        "heartbeat",
        "register",
        "heartbeat",
    ]
    agent.says("action=unknown_worker")
    agent.says("action=accepted", count=2)


def test_being_forgotten_again_and_again_is_met_with_patience(manager: Manager, start: Start) -> None:
    manager.ready["heartbeat"].extend([failing(404, "WORKER_NOT_FOUND")] * 2)
    agent = start("--verbose", apiUrl=manager.url)
    manager.heartbeats(3)
    manager.registrations(3)
    assert ["failures=2 " in line for line in agent.says("action=unknown_worker", count=2)] == [False, True]


def test_a_host_that_joins_a_swarm_registers_again_before_the_next_beat(
    manager: Manager, engine: Engine, start: Start
) -> None:
    start(apiUrl=manager.url)
    assert "swarmNodeId" not in manager.registration_with(containerCountKnown=True).body["metadata"]
    manager.heartbeats(2)
    engine.info["Swarm"] = {"NodeID": "n0d3"}
    news = manager.registration_with(swarmNodeId="n0d3")
    before = manager.requests.all().index(news) - 1
    manager.heartbeats(before + 1)
    assert [_kind(request) for request in manager.requests.all()[before : before + 3]] == [
        "heartbeat",
        "register",
        "heartbeat",
    ]


def test_a_host_that_left_its_swarm_says_so_and_one_whose_engine_is_away_does_not(
    manager: Manager, engine: Engine, start: Start
) -> None:
    engine.info["Swarm"] = {"NodeID": "n0d3", "LocalNodeState": "active"}
    start(apiUrl=manager.url)
    manager.registration_with(swarmNodeId="n0d3")
    engine.info["Swarm"] = {"NodeID": "", "LocalNodeState": "inactive"}
    assert manager.registration_with(swarmNodeId="").body["metadata"]["containerCountKnown"] is True
    engine.end()
    assert "swarmNodeId" not in manager.registration_with(containerCountKnown=False).body["metadata"]


def test_an_unchanged_host_registers_once(manager: Manager, start: Start) -> None:
    start(apiUrl=manager.url)
    manager.heartbeats(6)
    assert [_kind(request) for request in manager.requests.all()].count("register") == 1


def test_a_kept_connection_that_the_manager_closes_is_no_failure(manager: Manager, start: Start) -> None:
    manager.ready["heartbeat"].extend([manager.accepting(), DROP])
    agent = start(apiUrl=manager.url)
    _, dropped, repeated, _ = manager.heartbeats(4)
    assert dropped.body == repeated.body
    agent.says("action=accepted")
    assert not [line for line in agent.lines.all() if "unreachable" in line]


def test_the_token_goes_to_the_manager_alone_and_only_in_its_header(
    manager: Manager, engine: Engine, start: Start
) -> None:
    start(apiUrl=manager.url)
    manager.heartbeats(2)
    for request in manager.requests.all():
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in f"{request.path} {request.body}"
    for request in engine.requests.all():
        assert TOKEN not in str(request)
    assert engine.requests.all()


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(manager: Manager, start: Start) -> None:
    nowhere = "http://127.0.0.1:9"
    start(apiUrl=manager.url, environ={"http_proxy": nowhere, "HTTP_PROXY": nowhere, "ALL_PROXY": nowhere})
    manager.heartbeats(1)


def test_nix_is_named_where_it_is_present(manager: Manager, start: Start, tmp_path: Path) -> None:
    _fake_nix(tmp_path, "echo 'nix (Nix) 2.24.9'")
    start(apiUrl=manager.url, environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert manager.registrations(1)[0].body["metadata"]["nixVersion"] == "2.24.9"


def test_a_nix_that_hangs_does_not_hold_up_the_agent(manager: Manager, start: Start, tmp_path: Path) -> None:
    _fake_nix(tmp_path, "exec sleep 600")
    agent = start(apiUrl=manager.url, environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert "nixVersion" not in manager.registrations(1)[0].body["metadata"]
    agent.says("action=nix_failed")


def _fake_nix(folder: Path, line: str) -> None:
    nix = folder / "nix"
    nix.write_text(f"#!/bin/sh\n{line}\n")
    nix.chmod(0o755)


def _kind(request: Request) -> str:
    return request.path.rpartition("/")[2]
