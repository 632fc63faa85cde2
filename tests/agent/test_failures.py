"""What the agent does when its reports are not accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from skyagent import client
from skyagent.connections import Http
from skyagent.errors import Unreachable
from skyagent.settings import VARIABLES, load
from skyagent.tokens import Tokens
from tests.agent.peers import TOKEN, Answer, Engine, Manager, failing
from tests.agent.process import Agent

Start = Callable[..., Agent]


def test_a_manager_that_is_away_is_found_again(manager: Manager, start: Start) -> None:
    manager.end()
    agent = start("--verbose", apiUrl=manager.url)
    lines = agent.says("action=manager_unreachable", count=3)
    assert ["WARNING" in line for line in lines] == [True, False, False]
    assert "Connection refused" in lines[0]
    with Manager(manager.server_port) as again:
        again.heartbeats(2)
    assert " DEBUG " in agent.says("action=heartbeat")[0]
    accepted = agent.says("action=accepted")[0]
    assert " INFO " in accepted
    assert "failures=0" not in accepted


def test_a_request_that_was_ended_while_the_library_held_its_lock_is_the_last_to_wait_for_it(manager: Manager) -> None:
    settings = load(None, {VARIABLES["apiUrl"]: manager.url, VARIABLES["authToken"]: TOKEN})
    http = Http(settings, 1.0)
    reports = client.Manager(http, settings, Tokens(settings), 0.2)
    http._to_manager._optional_thread_lock.__enter__()  # as an alarm leaves it that comes in between
    with pytest.raises(Unreachable, match="timed out"):
        reports.heartbeat({})
    assert reports.heartbeat({}).next_seconds == manager.accepting().document["nextHeartbeatSeconds"]
    http._to_manager.close()


def test_one_line_for_each_change_of_state(manager: Manager, start: Start) -> None:
    manager.ready["heartbeat"].extend(
        [manager.accepting(), *[failing(500, "INTERNAL_ERROR", "Oops")] * 2, *[manager.accepting()] * 2]
    )
    agent = start(apiUrl=manager.url)
    manager.heartbeats(7)
    actions = [re.findall(r"action=(\w+)", line)[0] for line in agent.lines.all()]
    assert actions == ["docker_away", "registered", "accepted", "manager_failing", "accepted"]
    assert "500 INTERNAL_ERROR: Oops" in agent.says("action=manager_failing")[0]


def test_a_reason_that_changed_is_one_line_more(manager: Manager, start: Start) -> None:
    answers = [failing(500, "INTERNAL_ERROR", reason) for reason in ("Oops", "Oops", "Ouch", "Ouch", "Oops")]
    manager.ready["heartbeat"].extend([*answers, *[manager.accepting()] * 2])
    agent = start(apiUrl=manager.url)
    manager.heartbeats(7)
    agent.says("action=accepted")
    lines = [line for line in agent.lines.all() if "action=manager_failing" in line]
    assert [re.findall("O[a-z]+", line) for line in lines] == [["Oops"], ["Ouch"], ["Oops"]]


def test_a_manager_that_asks_for_time_gets_it(manager: Manager, start: Start) -> None:
    manager.ready["heartbeat"].append(failing(503, "DATABASE_UNAVAILABLE", Retry_After="3"))
    start(apiUrl=manager.url)
    first, second = manager.heartbeats(2)
    assert second.arrived_at - first.arrived_at >= 3


@pytest.mark.parametrize(("kind", "status"), [("register", 401), ("heartbeat", 403)])
def test_a_refusal_is_said_loudly_and_retried_slowly(manager: Manager, start: Start, kind: str, status: int) -> None:
    manager.ready[kind].append(failing(status, "UNAUTHORIZED", "The token was replaced"))
    agent = start(apiUrl=manager.url)
    [line] = agent.says("action=refused")
    assert " ERROR " in line
    assert "The token was replaced" in line
    assert 54 <= _retry_seconds(line) <= 66
    told = len(manager.requests.all())
    assert not manager.requests.await_some(lambda _: True, told + 1, deadline=1.5)[told:]


def test_only_the_agreed_answer_is_acceptance(manager: Manager, start: Start) -> None:
    others = [
        Answer(200, "<html>a portal</html>"),
        Answer(200, {"success": False}),
        Answer(200, ["success"]),
        Answer(302, {}, {"Location": "https://portal.example/"}),
        failing(400, "VALIDATION_ERROR", "cpuPercent"),
        failing(503, "DATABASE_UNAVAILABLE", Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
    ]
    for answer in others:
        manager.ready["heartbeat"].extend([answer, manager.accepting()])
    lines = start(apiUrl=manager.url).says("action=manager_failing", count=len(others))
    assert [re.findall(r"reason='(\d+)", line)[0] for line in lines] == [str(answer.status) for answer in others]


def test_agents_that_failed_together_do_not_return_together(manager: Manager, start: Start) -> None:
    manager.ready["register"].extend([failing(401, "UNAUTHORIZED")] * 4)
    agents = [start(apiUrl=manager.url) for _ in range(4)]
    assert len({_retry_seconds(agent.says("action=refused")[0]) for agent in agents}) > 1


def test_news_that_is_rejected_does_not_silence_a_known_worker(manager: Manager, engine: Engine, start: Start) -> None:
    agent = start(apiUrl=manager.url)
    manager.registration_with(containerCountKnown=True)
    manager.ready["register"].extend([failing(409, "CONFLICT", "that node is another worker's")] * 2)
    engine.info["Swarm"] = {"NodeID": "n0d3"}
    agent.says("action=registration_rejected")
    news = manager.requests.await_some(lambda request: "n0d3" in str(request.body), 3)
    assert len(news) == 3
    told = manager.requests.all()
    between = told[told.index(news[0]) : told.index(news[2])]
    assert [request.path.rpartition("/")[2] for request in between] == ["register", "heartbeat"] * 2
    assert len([line for line in agent.lines.all() if "registration_rejected" in line]) == 1


def test_news_that_is_rejected_for_another_reason_is_one_line_more(
    manager: Manager, engine: Engine, start: Start
) -> None:
    agent = start(apiUrl=manager.url)
    manager.registration_with(containerCountKnown=True)
    manager.ready["register"].extend([failing(409, "CONFLICT", f"reason {number}") for number in (1, 1, 2, 2)])
    engine.info["Swarm"] = {"NodeID": "n0d3"}
    assert len(manager.requests.await_some(lambda request: "n0d3" in str(request.body), 5)) == 5
    lines = agent.says("action=registration_rejected", count=2)
    assert ["reason 1" in lines[0], "reason 2" in lines[1]] == [True, True]
    assert len([line for line in agent.lines.all() if "registration_rejected" in line]) == 2


def test_no_line_ever_holds_the_token(manager: Manager, start: Start) -> None:
    reflected = f"Authorization: Bearer {TOKEN}"
    manager.ready["register"].append(failing(500, TOKEN, reflected))
    manager.ready["heartbeat"].extend(
        [failing(404, "WORKER_NOT_FOUND", reflected), failing(401, "UNAUTHORIZED", reflected)]
    )
    agent = start("--verbose", apiUrl=manager.url)
    agent.says("action=refused")
    assert len(agent.says("Bearer ***", count=3)) == 3
    assert not [line for line in agent.lines.all() if TOKEN in line or TOKEN.split(".")[1] in line]


def _retry_seconds(line: str) -> float:
    return float(re.findall(r"retry_seconds=([\d.]+)", line)[0])


@pytest.mark.parametrize("answer", [failing(503, "BUSY", Retry_After="2"), failing(500, "INTERNAL_ERROR")])
def test_a_known_worker_beats_while_it_cannot_register(
    manager: Manager, start: Start, tmp_path: Path, answer: Answer
) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
    start(apiUrl=manager.url, environ=environ).says("action=accepted")
    manager.ready["register"].append(answer)
    again = start(apiUrl=manager.url, environ=environ)
    again.says("action=registration_rejected")
    again.says("action=accepted")
    again.says("action=registered")


@pytest.mark.parametrize("changed", [{"bootId": "another"}, {"hostname": "another"}])
def test_who_may_be_another_host_does_not_beat_before_it_is_let_in(
    manager: Manager, start: Start, tmp_path: Path, changed: dict[str, str]
) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
    first = start(apiUrl=manager.url, environ=environ)
    first.says("action=accepted")
    first.clean_up()
    known = json.loads((tmp_path / "status.json").read_text())
    registered = known["registered"]
    known["registered"] = {**registered, **changed, "metadata": {**registered["metadata"], **changed}}
    (tmp_path / "status.json").write_text(json.dumps(known))
    manager.ready["register"].append(failing(503, "BUSY", Retry_After="1"))
    told = len(manager.requests.all())
    start(apiUrl=manager.url, environ=environ).says("action=accepted")
    paths = [request.path.rpartition("/")[2] for request in manager.requests.all()[told:]]
    assert paths[:3] == ["register", "register", "heartbeat"]
