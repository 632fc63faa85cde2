"""What takes the engine, over HTTP: `serve` has none, so that a monitor does it, and its answer is that of the command
line."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import httpx
import psycopg
import pytest

from skyctl.api.administration import table
from skyctl.domain.api_tokens import Role
from skyctl.domain.errors import AnsweredError, Busy, Refused
from skyctl.domain.monitor_requests import MonitorRequest
from skyctl.operations.admin import api_tokens, monitor_requests
from skyctl.operations.monitor import retention
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from tests.api.test_administration import Desk, ask
from tests.conftest import Process
from tests.operations.fleets import fleet_of
from tests.support.answering import answering
from tests.support.docker_stub import engine
from tests.support.helpers import PATIENCE_SECONDS, TESTS, bearer
from tests.support.in_process import InProcess

Serve = Callable[..., tuple[str, Process]]

pytestmark = pytest.mark.in_process


@pytest.fixture
def desk(serve: Serve, database_url: str, connection: psycopg.Connection, typed: InProcess) -> Iterator[Desk]:
    """Two workers, a service on the first, a monitor that answers, and an API that an administrator asks."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        fleet.deploy("web", to="w1")
        typed.engine = fleet.engine
        _, token = api_tokens.create(fleet.context, TESTS, "desk", Role.ADMIN, None)
        url = serve()[0]
        with (
            httpx.Client(base_url=url, headers=bearer(token), timeout=PATIENCE_SECONDS) as client,
            answering(fleet.context),
        ):
            yield Desk(client, fleet, fleet.ids, typed)


def printed(desk: Desk, *command: str) -> Any:
    done = desk.cli(*command, "-o", "json")
    assert done.returncode in (0, 4), done.stderr
    return json.loads(done.stdout)


def test_what_is_asked_of_the_engine_is_what_the_command_line_prints(desk: Desk) -> None:
    assert ask(desk, "GET", "/api/swarm/services") == printed(desk, "services", "list", "--all")
    shown = ask(desk, "GET", "/api/swarm/services/web")
    assert (shown["managed"], shown["wanted"], shown["running"]) == (True, 1, 1)
    assert shown["name"].endswith("-web")
    assert shown["labels"]
    _, token = api_tokens.create(desk.fleet.context, TESTS, "operator", Role.OPERATOR, None)
    seen = desk.api.get("/api/swarm/services/web", headers=bearer(token)).json()["data"]
    assert seen.keys() ^ shown.keys() == {"labels"}, "which may hold a secret"
    plan = printed(desk, "workers", "drain", "w1", "--plan")
    assert ask(desk, "POST", "/api/drains/plan", workers=["w1"]) == plan
    assert plan["containers"][0]["target"] == "w2"
    assert ask(desk, "GET", "/api/swarm/adoptable") == printed(desk, "services", "adopt", "--dry-run")
    offered = printed(desk, "workers", "upgrade", "--all", "--dry-run")
    everyone: dict[str, Any] = {"all": True, "dryRun": True}
    assert ask(desk, "POST", "/api/upgrades", **everyone) == offered


def test_a_service_is_deployed_changed_and_removed(desk: Desk) -> None:
    wanted: dict[str, Any] = {"name": "shop", "image": "shop:1", "cpu": "500m", "env": {"KEY": "secret1"}}
    assert ask(desk, "POST", "/api/services", **wanted, dryRun=True)["target"] in ("w1", "w2")
    assert ask(desk, "GET", "/api/services")["total"] == 1
    assert ask(desk, "POST", "/api/services", **wanted)["changes"] == []
    desk.fleet.settle()
    changed = ask(desk, "POST", "/api/services", **{**wanted, "image": "shop:2"})
    assert changed["changes"] == [{"field": "image", "before": "shop:1", "after": "shop:2"}]
    desk.fleet.settle()
    assert ask(desk, "POST", "/api/swarm/services/shop/scale", replicas=2) == {"service": "shop", "changed": True}
    assert ask(desk, "POST", "/api/swarm/services/web/restart") == {"service": "web"}
    only_said = ask(desk, "POST", "/api/swarm/services/shop/rollback", dryRun=True)
    assert {"field": "replicas", "before": "2", "after": "1"} in only_said["changes"]
    assert ask(desk, "DELETE", "/api/services/shop")["name"] == "shop"
    assert ask(desk, "POST", "/api/services/web/release")["name"] == "web"
    assert ask(desk, "GET", "/api/services")["total"] == 0
    [name] = [each["name"] for each in ask(desk, "GET", "/api/swarm/adoptable")["services"]]
    [planned] = ask(desk, "POST", "/api/swarm/adopt", all=True, dryRun=True)["services"]
    assert ask(desk, "GET", "/api/services")["total"] == 0
    adopted = ask(desk, "POST", "/api/swarm/adopt", services=[name])
    assert adopted == {"organization": "default", "services": [planned]}
    assert (planned["name"], planned["replicas"], planned["error"]) == (name, 1, None)
    [web] = ask(desk, "GET", "/api/services")["services"]
    assert web["adopted"]
    events = ask(desk, "GET", "/api/events")["events"]
    assert {event["actor"] for event in events if event["kind"] == "service_adopted"} == {"token:desk"}


def test_logs_are_for_operators(desk: Desk) -> None:
    desk.fleet.deploy("talk", to="w2", command=("sh", "-c", "echo begun; echo ready"))
    [line] = ask(desk, "GET", "/api/swarm/services/talk/logs?tail=1")["lines"]
    assert line["text"] == "ready"


MISTAKES: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/api/swarm/services/none", {}, 404, "the swarm has no service 'none'"),
    ("GET", "/api/swarm/services/%00", {}, 400, "reference: "),
    ("POST", "/api/services", {"name": "a", "image": "a:1", "colour": "red"}, 400, "colour: there is no such"),
    ("POST", "/api/services", {"name": "a", "image": "a b"}, 400, "image: "),
    ("POST", "/api/services", {"name": "a", "image": "a:1", "dryRun": "yes"}, 400, "dryRun: "),
    ("POST", "/api/services", {"name": "a", "image": "a:1", "cpu": 4000}, 409, "a finds no place: "),
    ("POST", "/api/swarm/services/web/scale", {"replicas": 0}, 400, "replicas: 0 is not accepted"),
    ("POST", "/api/swarm/adopt", {"services": ["web"], "stack": "s"}, 400, "services, stack, all: just one of them"),
    ("POST", "/api/swarm/adopt", {"services": "web"}, 400, "services: "),
    ("POST", "/api/drains/plan", {"workers": ["none"]}, 404, "there is no worker 'none'"),
    ("POST", "/api/upgrades", {}, 400, "workers, all: just one of them"),
]


def test_a_mistake_is_answered_as_if_it_had_been_done_here(desk: Desk) -> None:
    for method, path, body, status, said in MISTAKES:
        assert ask(desk, method, path, status, **body).startswith(said)


def test_nothing_of_a_request_stays_in_the_database(desk: Desk, connection: psycopg.Connection) -> None:
    wanted: dict[str, Any] = {"name": "shop", "image": "shop:1", "env": {"KEY": "secret1"}}
    ask(desk, "POST", "/api/services", **wanted)
    ask(desk, "GET", "/api/swarm/services/none", 404)
    assert connection.execute("SELECT count(*) FROM monitor_requests").fetchone() == (0,)


def test_without_a_monitor_that_is_said_and_nothing_is_done_later(
    serve: Serve, context: Context, connection: psycopg.Connection
) -> None:
    _, token = api_tokens.create(context, TESTS, "desk", Role.ADMIN, None)
    with httpx.Client(base_url=serve()[0], headers=bearer(token), timeout=PATIENCE_SECONDS) as api:
        answer = api.post("/api/services", json={"name": "shop", "image": "shop:1"})
    assert answer.status_code == 503
    assert answer.json()["error"] == {
        "code": "ENGINE_UNAVAILABLE",
        "message": "no monitor has taken this up: see that `skyctl monitor` runs",
    }
    assert connection.execute("SELECT count(*) FROM monitor_requests").fetchone() == (0,)


def test_what_nobody_waits_for_any_more_is_not_done(context: Context, connection: psycopg.Connection) -> None:
    ask = "INSERT INTO monitor_requests (id, route, request, asked_at) VALUES (gen_random_uuid(), %s, '{}', now() - %s)"
    connection.execute(ask, ["DELETE /api/services/{reference}", timedelta(seconds=6)])
    done: list[object] = []
    assert monitor_requests.answer_next(context, lambda _, request: done.append(request)) is None
    assert done == []
    connection.execute("UPDATE monitor_requests SET asked_at = now() - interval '1 h'")
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    retention.prune(term)
    assert connection.execute("SELECT count(*) FROM monitor_requests").fetchone() == (0,)


def test_where_all_are_busy_that_is_said(context: Context, connection: psycopg.Connection) -> None:
    take = "INSERT INTO monitor_requests (id, route, request, taken_at) VALUES (gen_random_uuid(), 'x', '{}', now())"
    connection.execute(take)
    with pytest.raises(Busy, match="the monitors are busy"):
        monitor_requests.ask(context, "GET /api/swarm/services", "{}")


def test_an_answer_has_a_limit(context: Context) -> None:
    with (
        answering(context, lambda *_: {"text": "x" * monitor_requests.LONGEST_OUTCOME}),
        pytest.raises(AnsweredError, match="the answer is over"),
    ):
        monitor_requests.ask(context, "GET /api/swarm/services", "{}")


def test_what_nobody_expected_is_told_and_the_next_one_is_answered(context: Context) -> None:
    def break_down(*_: object) -> NoReturn:
        raise RuntimeError("secret1")

    raised: list[RuntimeError] = []

    def answer() -> None:
        with context.db.listening("skyctl_asked") as news:
            for _ in news.notifies(stop_after=1):
                try:
                    monitor_requests.answer_next(context, break_down)
                except RuntimeError as error:
                    raised.append(error)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with pytest.raises(AnsweredError, match="unexpected error: see the log of skyctl monitor") as told:
            monitor_requests.ask(context, "GET /api/swarm/services", "{}")
    finally:
        thread.join()
    assert (told.value.http_status, told.value.code, len(raised)) == (500, "INTERNAL_ERROR", 1)


def test_two_monitors_do_a_request_once(desk: Desk) -> None:
    desk.fleet.deploy("db", to="w2")
    with answering(desk.fleet.context):
        for _ in range(5):
            ask(desk, "POST", "/api/swarm/services/db/restart")
    restarted = [event for event in ask(desk, "GET", "/api/events")["events"] if "restarted" in event["reason"]]
    assert len(restarted) == 5


def test_a_monitor_that_runs_answers_whether_it_leads_or_not(
    serve: Serve, start: Callable[..., Process], context: Context, tmp_path: Path
) -> None:
    _, token = api_tokens.create(context, TESTS, "desk", Role.VIEWER, None)
    with engine(tmp_path, lambda *_: (503, {"message": "This node is not a swarm manager."})) as address:
        leader = start("monitor", DOCKER_HOST=address)
        leader.until("action=leads")
        second = start("monitor", DOCKER_HOST=address)
        second.until("action=stands_by")
        with httpx.Client(base_url=serve()[0], headers=bearer(token), timeout=PATIENCE_SECONDS) as api:
            answer = api.get("/api/swarm/services")
            assert answer.status_code in (409, 503)
            assert "not a swarm manager" in answer.json()["error"]["message"]
            assert leader.stop() == 0
            assert "not a swarm manager" in api.get("/api/swarm/services").json()["error"]["message"]
        assert second.stop() == 0


def test_an_operator_has_no_variable_printed_and_sees_no_label(desk: Desk) -> None:
    desk.fleet.deploy("db", to="w2", environment={"KEY": "secret1"}, labels={"a": "secret2"}, command=("--k=secret3",))
    _, token = api_tokens.create(desk.fleet.context, TESTS, "operator", Role.OPERATOR, None)

    def deploy(**fields: Any) -> httpx.Response:
        return desk.api.post("/api/services", json={"name": "db", "keep": True, **fields}, headers=bearer(token))

    for what in ({"command": ["env"]}, {"image": "mine:1"}):
        refused = deploy(**what, dryRun=True)
        assert refused.status_code == 403
        assert refused.json()["error"]["message"].startswith("db has variables, which another image or command")
    assert deploy(memory="1G").json()["data"]["changes"] == [{"field": "memory", "before": "512", "after": "1024"}]
    whole = {"image": "mine:1", "labels": {"a": "b"}, "command": ["x"], "keep": False, "dryRun": True}
    seen = deploy(**whole).json()["data"]["changes"]
    assert {"field": "labels.a", "before": "hidden", "after": "hidden"} in seen
    assert "secret" not in json.dumps(seen)
    of_admin = ask(desk, "POST", "/api/services", name="db", image="mine:1", dryRun=True)["changes"]
    assert {"field": "labels.a", "before": "secret2", "after": None} in of_admin


def test_what_is_shown_of_a_way_back_says_nothing_of_what_is_in_it(desk: Desk) -> None:
    desk.fleet.deploy("db", to="w2", environment={"KEY": "secret1"})
    desk.fleet.deploy("db", environment={"KEY": "secret2"})
    way = ask(desk, "POST", "/api/swarm/services/db/rollback", dryRun=True)
    desk.fleet.connection.execute("UPDATE skyctl_installation SET worker_key_salt = 'another'")
    assert ask(desk, "POST", "/api/swarm/services/db/rollback", dryRun=True)["state"] != way["state"]
    refused = ask(desk, "POST", "/api/swarm/services/db/rollback", 409, expected="another")
    assert refused.startswith("db was changed meanwhile")


@pytest.mark.parametrize("route", ["POST /api/invitations", "GET /api/events/stream", "POST /api/nothing"])
def test_a_row_has_the_monitor_do_only_what_is_left_to_it(desk: Desk, route: str) -> None:
    asked = MonitorRequest(
        uuid4(), route, json.dumps({"by": ["eve", None, None, None], "path": {}, "query": {}, "body": None})
    )
    with pytest.raises(Refused, match="the monitor does not do"):
        table.perform(desk.fleet.context, asked)
