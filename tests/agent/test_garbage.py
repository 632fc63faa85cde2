"""Answers and configurations that nobody meant: too deep, too long, without an end."""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.peers import DRIP_BODY, DRIP_HEADERS, NESTED, Answer, Engine, Manager, failing
from tests.agent.process import Agent, agent_command, agent_environ

Start = Callable[..., Agent]
SUCCESS = {"success": True, "nextHeartbeatSeconds": 0.2}


@pytest.mark.parametrize("kind", ["register", "heartbeat"])
@pytest.mark.parametrize(
    "answer",
    [Answer(200, NESTED), Answer(500, NESTED), Answer(200, SUCCESS | {"more": "x" * 70_000})],
    ids=["deep", "deep error", "long"],
)
def test_garbage_is_a_failure_that_passes(manager: Manager, start: Start, kind: str, answer: Answer) -> None:
    manager.ready[kind].append(answer)
    agent = start(apiUrl=manager.url)
    assert str(answer.status) in agent.says("action=manager_failing")[0]
    agent.says("action=accepted")
    assert "Traceback" not in "".join(agent.lines.all())


@pytest.mark.parametrize("kind", ["register", "heartbeat"])
@pytest.mark.parametrize("answer", [DRIP_HEADERS, DRIP_BODY], ids=["headers", "body"])
def test_an_answer_without_an_end_is_given_up(manager: Manager, start: Start, kind: str, answer: Answer) -> None:
    """The watchdog's period makes the time limit half a second; each byte comes well within it."""
    manager.ready[kind].append(answer)
    agent = start(apiUrl=manager.url, environ={"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "2000000"})
    assert "timed out" in agent.says("action=manager_unreachable")[0]
    agent.says("action=accepted")


@pytest.mark.parametrize("answer", [Answer(200, NESTED), Answer(200, "[" * 70_000)], ids=["deep", "long"])
def test_garbage_of_the_engine_is_no_count(manager: Manager, engine: Engine, start: Start, answer: Answer) -> None:
    agent = start(apiUrl=manager.url)
    manager.registration_with(containerCountKnown=True)
    engine.ready.extend([answer] * 3)  # one that comes late may be followed by a good one before it is looked at
    agent.says("action=docker_away containers=7")
    agent.says("action=docker_answers", count=2)
    assert "Traceback" not in "".join(agent.lines.all())


@pytest.mark.parametrize("answer", [DRIP_HEADERS, DRIP_BODY], ids=["headers", "body"])
def test_an_engine_without_an_end_is_away(manager: Manager, engine: Engine, start: Start, answer: Answer) -> None:
    agent = start(apiUrl=manager.url, environ={"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "2000000"})
    manager.registration_with(containerCountKnown=True)
    engine.ready.extend([answer] * 100)
    agent.says("action=docker_away containers=7")
    unknown = manager.registration_with(containerCountKnown=False, dockerVersion="28.0.1")
    assert unknown.body["metadata"]["containerCountKnown"] is False
    agent.ends_on(signal.SIGTERM)


def test_a_text_of_the_engine_that_utf_8_cannot_hold(manager: Manager, engine: Engine, start: Start) -> None:
    engine.info |= {"ServerVersion": "\ud800" + "9" * 5000, "DockerRootDir": "/\ud800" * 5000}
    start(apiUrl=manager.url)
    version = manager.registration_with(containerCountKnown=True).body["metadata"]["dockerVersion"]
    assert version.startswith("?999")
    assert len(version) <= 1024
    manager.heartbeats(2)


@pytest.mark.parametrize("seconds", ["3600", "9" * 5000])
def test_no_manager_asks_for_more_than_half_a_minute(manager: Manager, start: Start, seconds: str) -> None:
    manager.ready["heartbeat"].append(failing(503, "DATABASE_UNAVAILABLE", Retry_After=seconds))
    line = start(apiUrl=manager.url).says("action=manager_failing")[0]
    assert 30 <= float(re.findall(r"retry_seconds=([\d.]+)", line)[0]) <= 31


@pytest.mark.parametrize("deep", ["file", "token"])
def test_a_configuration_too_deep_to_read(launch: Callable[..., Agent], tmp_path: Path, deep: str) -> None:
    config = tmp_path / "config.json"
    payload = base64.urlsafe_b64encode(b'{"workerId":' + b"[" * 50_000).decode()
    config.write_text(NESTED if deep == "file" else f'{{"apiUrl": "http://127.0.0.1:1", "authToken": "a.{payload}.c"}}')
    config.chmod(0o600)
    agent = launch(agent_command("--config", str(config)), agent_environ())
    assert agent.exit_code() == 2
    error, hint = agent.lines.all()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
