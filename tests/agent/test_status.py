"""What `skyagent status` prints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.agent.peers import TOKEN, WORKER_ID, Manager, failing
from tests.agent.process import ROOT, Agent, agent_command, agent_environ
from tests.support.helpers import PATIENCE_SECONDS

Start = Callable[..., Agent]


def status(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent_command("status", *arguments),
        cwd=ROOT,
        env=agent_environ(RUNTIME_DIRECTORY=str(folder)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def test_it_says_what_was_sent_and_got(manager: Manager, start: Start, tmp_path: Path) -> None:
    agent = start(apiUrl=manager.url, environ={"RUNTIME_DIRECTORY": str(tmp_path)})
    [beat] = manager.heartbeats(1)
    manager.next_seconds = 900
    agent.says("action=accepted")
    shown = json.loads(status(tmp_path, "-o", "json").stdout)
    assert shown["lastHeartbeat"]["load"].keys() == beat.body.keys()
    assert (shown["state"], shown["failures"], shown["running"]) == ("accepted", 0, True)
    assert (shown["workerId"], shown["manager"]) == (WORKER_ID, manager.url)
    assert shown["registered"]["hostname"] == manager.registrations(1)[0].body["hostname"]
    text = status(tmp_path)
    assert (text.returncode, text.stderr) == (0, "")
    assert f"Manager         {manager.url}\n" in text.stdout
    assert f"Running         yes, process {agent.process.pid}, since 20" in text.stdout
    assert "containerCount" in text.stdout


def test_it_says_what_is_wrong_and_how_often(manager: Manager, start: Start, tmp_path: Path) -> None:
    manager.ready["heartbeat"].append(failing(401, "UNAUTHORIZED", f"the token {TOKEN} is not this worker's"))
    start(apiUrl=manager.url, environ={"RUNTIME_DIRECTORY": str(tmp_path)}).says("action=refused")
    text = status(tmp_path).stdout
    assert "State           refused: 401 UNAUTHORIZED: the token *** is not this worker's\n" in text
    assert "Reports         1 failed in a row" in text
    assert "Last heartbeat  none was accepted since it started\n" in text
    assert TOKEN not in (tmp_path / "status.json").read_text()


def test_what_the_manager_said_does_nothing_to_a_terminal(manager: Manager, start: Start, tmp_path: Path) -> None:
    manager.ready["heartbeat"].append(failing(401, "UNAUTHORIZED", "no\x1b[2J\x9b1m\rway"))
    start(apiUrl=manager.url, environ={"RUNTIME_DIRECTORY": str(tmp_path)}).says("action=refused")
    assert "State           refused: 401 UNAUTHORIZED: no?[2J?1m?way\n" in status(tmp_path).stdout


def test_what_has_ended_is_said_to_have(manager: Manager, start: Start, tmp_path: Path) -> None:
    agent = start(apiUrl=manager.url, environ={"RUNTIME_DIRECTORY": str(tmp_path)})
    agent.says("action=accepted")
    agent.process.kill()
    agent.exit_code()
    assert "Running         no" in status(tmp_path).stdout


def test_where_it_never_ran_that_is_the_error(tmp_path: Path) -> None:
    done = status(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the agent does not run on this host, or has never run\nhint: see: systemctl status skypanel-worker\n"
    )


def test_a_status_that_cannot_be_read_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    for damage in ("", "[]", '{"pid": ', "\0"):
        (tmp_path / "status.json").write_text(damage)
        done = status(tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 2), damage
        assert done.stderr.startswith("error: "), damage


def test_a_folder_that_cannot_be_written_silences_nobody(manager: Manager, start: Start, tmp_path: Path) -> None:
    start(apiUrl=manager.url, environ={"RUNTIME_DIRECTORY": str(tmp_path / "gone")})
    manager.heartbeats(2)
