"""The configuration: what is understood, and what is refused in which words."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.peers import TOKEN, WORKER_ID, Manager, make_token
from tests.agent.process import ROOT, Agent, agent_command, agent_environ
from tests.support.helpers import PATIENCE_SECONDS

Start = Callable[..., Agent]
URL = "https://manager.example"


def refused(*arguments: str, **variables: str) -> tuple[str, str]:
    """The error and the hint of a start that is refused; they are all that is said."""
    answer = subprocess.run(
        agent_command(*arguments),
        cwd=ROOT,
        env=agent_environ(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert answer.returncode == 2
    error, hint = answer.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert answer.stdout == ""
    assert TOKEN not in answer.stderr
    return error, hint


def test_the_panels_own_configuration_works(manager: Manager, start: Start) -> None:
    """The panel's agent writes milliseconds, and an apiUrl that may already end in `/api`."""
    manager.next_seconds = None
    start(apiUrl=f"{manager.url}/api/", workerId=WORKER_ID, heartbeatInterval=1500)
    first, second = manager.heartbeats(2)
    assert second.arrived_at - first.arrived_at >= 1.3, "seconds, by whatever that number is divided"


def test_the_environment_alone_is_enough(manager: Manager, launch: Start, tmp_path: Path) -> None:
    manager.next_seconds = None
    environ = agent_environ(
        SKYAGENT_API_URL=manager.url,
        SKYAGENT_TOKEN="opaque",
        SKYAGENT_WORKER_ID=WORKER_ID,
        SKYAGENT_INTERVAL="0.2",
        SKYAGENT_DOCKER_SOCKET=str(tmp_path / "none"),
    )
    launch(agent_command(), environ)
    assert manager.heartbeats(3)[0].headers["Authorization"] == "Bearer opaque"


def test_the_environment_stands_over_the_file(manager: Manager, start: Start) -> None:
    start(apiUrl="https://elsewhere.example", environ={"SKYAGENT_API_URL": manager.url, "SKYAGENT_INTERVAL": ""})
    manager.heartbeats(1)


def test_a_file_that_others_can_read_is_warned_of(
    manager: Manager, start: Start, launch: Start, write_config: Callable[..., Path]
) -> None:
    agent = start(apiUrl=manager.url)
    agent.says("action=accepted")
    assert not [line for line in agent.lines.all() if "config_exposed" in line]
    exposed = write_config(apiUrl=manager.url)
    exposed.chmod(0o644)
    agent = launch(agent_command("--config", str(exposed)), agent_environ())
    assert str(exposed) in agent.says("action=config_exposed")[0]


def test_an_unknown_field_is_named(manager: Manager, start: Start) -> None:
    agent = start(apiUrl=manager.url, heartbeatIntervall=5)
    assert "heartbeatIntervall" in agent.says("action=config_unknown")[0]
    agent.says("action=accepted")


@pytest.mark.parametrize("url", ["http://manager.example:3001", "http://192.0.2.1/api", "http://[2001:db8::1]"])
def test_plain_http_to_another_machine_is_refused(write_config: Callable[..., Path], url: str) -> None:
    error, hint = refused("--config", str(write_config(apiUrl=url, insecure=False)))
    assert url.removesuffix("/api") in error
    assert "https" in hint
    assert "insecure" in hint


def test_plain_http_can_be_insisted_on(manager: Manager, start: Start) -> None:
    """0.0.0.0 is no loopback address, but leads to this machine."""
    url = f"http://0.0.0.0:{manager.server_port}"
    assert (
        refused(SKYAGENT_API_URL=url, SKYAGENT_TOKEN=TOKEN)[0]
        == f"error: apiUrl {url} would send the token in the clear"
    )
    start(apiUrl=url, insecure=True)
    manager.heartbeats(1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"apiUrl": None}, ["apiUrl is missing", "SKYAGENT_API_URL"]),
        ({"authToken": None}, ["authToken is missing", "SKYAGENT_TOKEN"]),
        ({"authToken": "abc"}, ["authToken names no worker", "workerId"]),
        ({"authToken": make_token(worker_id="7")}, ["workerId in the token", "'7'", "UUID"]),
        ({"authToken": f"{TOKEN}\n"}, ["authToken", "not shown", "one line"]),
        ({"authToken": 5}, ["authToken", "not shown"]),
        ({"workerId": "worker-1"}, ["workerId", "'worker-1'", "UUID"]),
        ({"apiUrl": "manager.example"}, ["apiUrl", "'manager.example'", "https://HOST"]),
        ({"apiUrl": "https://manager.example:70000"}, ["apiUrl", "70000"]),
        ({"apiUrl": "https://[::]]"}, ["apiUrl", "[::]]"]),
        ({"apiUrl": "ftp://manager.example"}, ["apiUrl", "ftp://"]),
        ({"apiUrl": "https://manager.example/?a=b"}, ["apiUrl", "query"]),
        ({"apiUrl": ["https://manager.example"]}, ["apiUrl", "['https://manager.example']"]),
        ({"heartbeatInterval": "soon"}, ["heartbeatInterval", "'soon'", "seconds"]),
        ({"heartbeatInterval": 0}, ["heartbeatInterval", "0"]),
        ({"heartbeatInterval": -5}, ["heartbeatInterval", "-5"]),
        ({"heartbeatInterval": True}, ["heartbeatInterval", "True"]),
        ({"heartbeatInterval": float("nan")}, ["heartbeatInterval", "nan"]),
        ({"heartbeatInterval": 1e12}, ["heartbeatInterval", "1000000000000"]),
        ({"heartbeatInterval": 10**310}, ["heartbeatInterval", "1000"]),
        ({"insecure": "perhaps"}, ["insecure", "'perhaps'", "true or false"]),
        ({"dockerSocket": "docker.sock"}, ["dockerSocket", "'docker.sock'", "absolute"]),
        ({"caFile": 1}, ["caFile", "1", "absolute"]),
        ({"caFile": "/nowhere/ca.pem"}, ["caFile /nowhere/ca.pem", "No such file"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_value_that_cannot_be_used_is_named(
    write_config: Callable[..., Path], fields: dict[str, Any], words: list[str]
) -> None:
    said = " ".join(refused("--config", str(write_config(**{"apiUrl": URL, **fields}))))
    assert not [word for word in words if word not in said], said


def test_a_password_in_the_url_is_not_shown(write_config: Callable[..., Path]) -> None:
    error, _ = refused("--config", str(write_config(apiUrl="https://admin:pa55w0rd@manager.example")))
    assert "pa55w0rd" not in error
    assert "***@manager.example" in error


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "no JSON object"), (None, "No such file")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    error, _ = refused("--config", str(path))
    assert str(path) in error
    assert words in error


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"SKYAGENT_INTERVAL": "often"}, "SKYAGENT_INTERVAL"),
        ({"SKYAGENT_INSECURE": "maybe"}, "SKYAGENT_INSECURE"),
        ({"SKYAGENT_CA_FILE": __file__}, "caFile"),
        ({"HTTPS_PROXY": "gopher://proxy.example"}, "HTTPS_PROXY"),
    ],
    ids=str,
)
def test_a_variable_that_cannot_be_used_is_named(variables: dict[str, str], word: str) -> None:
    error, _ = refused(SKYAGENT_API_URL=URL, SKYAGENT_TOKEN=TOKEN, **variables)
    assert word in error


def test_an_unknown_option_is_named() -> None:
    error, hint = refused("--loud")
    assert "--loud" in error
    assert "--help" in hint
