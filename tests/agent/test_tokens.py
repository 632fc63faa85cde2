"""What the agent does with a new token that the manager hands over."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.peers import TOKEN, Answer, Manager, failing
from tests.agent.process import Agent

Start = Callable[..., Agent]
NEW = "a-new-token"


def handing_over(manager: Manager, token: object) -> Answer:
    return Answer(200, {**manager.accepting().document, "newToken": token})


def sent(manager: Manager, count: int) -> list[str]:
    return [request.headers["Authorization"].removeprefix("Bearer ") for request in manager.heartbeats(count)]


def test_a_new_token_is_kept_and_used_from_then_on(manager: Manager, start: Start, tmp_path: Path) -> None:
    manager.ready["heartbeat"].append(handing_over(manager, NEW))
    agent = start(apiUrl=manager.url)
    assert sent(manager, 3) == [TOKEN, NEW, NEW]
    agent.says("action=token_replaced")
    kept = tmp_path / "token.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["token"] == NEW
    assert not any(NEW in line or TOKEN in line for line in agent.lines.all())
    agent.clean_up()
    start(apiUrl=manager.url)
    assert sent(manager, 5)[3:] == [NEW, NEW], "it outlives the process"


def test_a_new_token_of_a_registration_is_used_by_the_very_next_heartbeat(manager: Manager, start: Start) -> None:
    """Two hosts with one disk that come back at once are told apart by who has it."""
    accepted = manager.accepting().document
    manager.ready["register"].append(Answer(201, {**accepted, "newToken": NEW}))
    start(apiUrl=manager.url)
    assert sent(manager, 2) == [NEW, NEW]


def test_a_new_token_that_is_refused_leaves_the_one_before(manager: Manager, start: Start) -> None:
    manager.ready["heartbeat"].extend([handing_over(manager, NEW), failing(401, "UNAUTHORIZED")])
    agent = start(apiUrl=manager.url)
    assert sent(manager, 4) == [TOKEN, NEW, TOKEN, TOKEN]
    agent.says("action=new_token_refused")
    assert not any("action=refused" in line for line in agent.lines.all())


def test_one_that_was_used_and_is_refused_later_leaves_the_one_before(manager: Manager, start: Start) -> None:
    """The manager did not note its first use, or its database is one of before."""
    manager.ready["heartbeat"].extend([handing_over(manager, NEW), manager.accepting(), failing(401, "UNAUTHORIZED")])
    agent = start(apiUrl=manager.url)
    assert sent(manager, 5) == [TOKEN, NEW, NEW, TOKEN, TOKEN]
    agent.says("action=new_token_refused")


def test_a_kept_token_yields_to_a_configuration_that_is_newer(manager: Manager, start: Start, tmp_path: Path) -> None:
    manager.ready["heartbeat"].append(handing_over(manager, NEW))
    agent = start(apiUrl=manager.url)
    assert sent(manager, 2)[-1] == NEW
    agent.clean_up()
    seen = len(manager.requests.all())
    start(apiUrl=manager.url, authToken=TOKEN + "x")
    again = manager.requests.await_some(lambda request: request.path.endswith("heartbeat"), 3)
    assert len(manager.requests.all()) > seen
    assert again[-1].headers["Authorization"] == f"Bearer {TOKEN}x"
    assert json.loads((tmp_path / "token.json").read_text())["token"] == NEW


def test_what_a_killed_agent_left_half_written_is_removed_at_the_start(
    manager: Manager, start: Start, tmp_path: Path
) -> None:
    half = tmp_path / "token.json.new"
    half.write_text(json.dumps({"token": NEW}))
    start(apiUrl=manager.url)
    assert sent(manager, 1) == [TOKEN]
    assert not half.exists()


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", 7, None, ["x"], "x" * 5000])
def test_what_is_no_token_is_not_taken(manager: Manager, start: Start, tmp_path: Path, token: object) -> None:
    manager.ready["heartbeat"].append(handing_over(manager, token))
    start(apiUrl=manager.url)
    assert sent(manager, 2) == [TOKEN, TOKEN]
    assert not (tmp_path / "token.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"token": 7}', "\\xff"])
def test_a_damaged_file_is_as_none(manager: Manager, start: Start, tmp_path: Path, text: str) -> None:
    (tmp_path / "token.json").write_text(text)
    start(apiUrl=manager.url)
    assert sent(manager, 1) == [TOKEN]


def test_the_service_managers_folder_comes_first(manager: Manager, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    manager.ready["heartbeat"].append(handing_over(manager, NEW))
    start(apiUrl=manager.url, environ={"STATE_DIRECTORY": str(folder)})
    assert sent(manager, 2) == [TOKEN, NEW]
    assert json.loads((folder / "token.json").read_text())["token"] == NEW


def test_an_agent_that_could_not_keep_a_token_says_so(manager: Manager, start: Start, tmp_path: Path) -> None:
    """The manager never replaces the token of one that does not say that it takes new ones."""
    manager.ready["heartbeat"].append(handing_over(manager, NEW))
    start(apiUrl=manager.url, environ={"STATE_DIRECTORY": str(tmp_path / "nowhere")})
    assert sent(manager, 2) == [TOKEN, TOKEN]
    assert "takesTokens" not in manager.registrations(1)[0].body["metadata"]


def test_the_machine_is_told_apart_without_its_id(manager: Manager, start: Start) -> None:
    start(apiUrl=manager.url)
    metadata = manager.registrations(1)[0].body["metadata"]
    assert metadata["takesTokens"] is True
    own = Path("/etc/machine-id").read_text().strip()
    assert metadata["machineId"] == hmac.new(own.encode(), b"skyagent", hashlib.sha256).hexdigest()
    assert own not in json.dumps(metadata)


@pytest.mark.parametrize("code", ["TOKEN_IN_USE", "WORKER_CLONED"])
def test_a_host_that_is_not_the_workers_says_so_loudly(manager: Manager, start: Start, code: str) -> None:
    manager.ready["register"].append(failing(409, code, "host-1 has it"))
    agent = start(apiUrl=manager.url)
    [line] = agent.says("action=refused")
    assert " ERROR " in line
    assert code in line
    assert "host-1 has it" in line
