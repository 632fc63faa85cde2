"""The operations of administration over HTTP: what each answers and does, and that its documents are those of the
command line."""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psycopg
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from rich.console import Console

from skyctl.api import openapi
from skyctl.api.administration.table import TABLE
from skyctl.cli import views
from skyctl.domain.api_tokens import Role
from skyctl.operations.admin import api_tokens, drains
from tests.conftest import Cli, Process
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import PATIENCE_SECONDS, TESTS, bearer, look
from tests.support.in_process import InProcess

Serve = Callable[..., tuple[str, Process]]
AGE = re.compile(r"\b\d+(?:\.\d+)? ?[smhd]\b")
NOT_ANSWERED = ("Runs",)
"""What the command line asks the engine for beside that."""


class Desk(NamedTuple):
    """A fleet of which w1, with a service, is failing, and its API as an administrator asks it."""

    api: httpx.Client
    fleet: Fleet
    ids: dict[str, UUID]
    cli: Cli | InProcess


@pytest.fixture
def desk(serve: Serve, database_url: str, connection: psycopg.Connection, cli: Cli) -> Iterator[Desk]:
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        fleet.deploy("web", to="w1")
        fleet.settle()
        _, token = api_tokens.create(fleet.context, TESTS, "desk", Role.ADMIN, None)
        with httpx.Client(base_url=serve()[0], headers=bearer(token), timeout=PATIENCE_SECONDS) as client:
            yield Desk(client, fleet, fleet.ids, cli)


def ask(desk: Desk, method: str, path: str, status: int = 200, **body: Any) -> Any:
    """What is answered, which is as the document of the API says."""
    answer = desk.api.request(method, path, json=body or None)
    assert answer.status_code == status, answer.text
    schema = described(method, path.partition("?")[0], status)
    Draft202012Validator(schema).validate(answer.json())
    return answer.json()["data"] if status == 200 else answer.json()["error"]["message"]


def described(method: str, path: str, status: int) -> dict[str, Any]:
    parts = path.split("/")

    def fits(template: str) -> bool:
        wanted = template.split("/")
        return len(wanted) == len(parts) and all(
            w in (p, "{id}", "{reference}") for w, p in zip(wanted, parts, strict=True)
        )

    template = min((path for path in openapi.PATHS if fits(path)), key=lambda path: path.count("{"))
    answers = openapi.PATHS[template][method.lower()]["responses"]
    schema = answers[str(status)]["content"]["application/json"]["schema"]
    return {**schema, "components": openapi.DOCUMENT["components"]}


def printed(desk: Desk, *command: str) -> Any:
    """What the command line prints of the same."""
    done = desk.cli(*command, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    """A document without the time at which it was read."""
    assert document["readAt"]
    return document | {"readAt": None}


def fail(desk: Desk) -> None:
    """w1 fails, and what is to leave it waits."""
    half_an_hour: dict[str, Any] = {"for": "30m", "reason": "night"}
    ask(desk, "POST", "/api/migrations/pause", **half_an_hour)
    desk.fleet.fail("w1")
    desk.fleet.step()


def test_what_is_read_is_what_the_command_line_prints(desk: Desk) -> None:
    fail(desk)
    worker = desk.ids["w1"]
    assert timeless(ask(desk, "GET", "/api/services")) == timeless(printed(desk, "services", "list"))
    assert ask(desk, "GET", "/api/services?worker=w2")["total"] == 0
    shown = ask(desk, "GET", "/api/services/web")
    assert shown["name"] == "web"
    assert len(shown["deployments"]) == 1
    assert timeless(ask(desk, "GET", "/api/migrations")) == timeless(printed(desk, "migrations", "list"))
    assert ask(desk, "GET", "/api/migrations?state=queued,held&worker=w1&limit=1")["total"] == 1
    assert timeless(ask(desk, "GET", "/api/migrations/web")) == timeless(printed(desk, "migrations", "show", "web"))
    assert ask(desk, "GET", "/api/organizations") == printed(desk, "policy", "get")
    assert timeless(ask(desk, "GET", "/api/tokens")) == timeless(printed(desk, "tokens", "list"))
    assert timeless(ask(desk, "GET", "/api/alerts")) == timeless(printed(desk, "alerts", "list"))
    why = ask(desk, "GET", f"/api/workers/{worker}/why")
    assert why["verdict"]["status"] == printed(desk, "workers", "why", "w1")["verdict"]["status"] == "offline"
    assert [each["name"] for each in why["containers"]] == ["web"]
    assert ask(desk, "GET", f"/api/workers/{worker}/drain")["requestedAt"] is None
    overview = ask(desk, "GET", "/api/cluster")
    assert overview["stats"]["offlineWorkers"] == 1


def test_the_command_lines_tables_show_what_is_answered(desk: Desk) -> None:
    drains.drain(desk.fleet.context, [desk.ids["w1"]], TESTS)
    fail(desk)
    page = desk.api.get("/api/workers").json()
    workers = {**page, "workers": page["data"], "total": page["pagination"]["total"]}
    worker, why, web, move = (
        ask(desk, "GET", path)
        for path in (
            f"/api/workers/{desk.ids['w1']}",
            f"/api/workers/{desk.ids['w1']}/why",
            "/api/services/web",
            "/api/migrations/web",
        )
    )
    for command, tables in (
        ("workers list", views.workers.worker_table(workers)),
        ("workers show w1", views.workers.worker_details(worker)),
        ("workers why w1", views.diagnosis.diagnosis(why)),
        ("services list", views.workloads.service_table(ask(desk, "GET", "/api/services"), 0, wide=False)),
        ("services show web", views.workloads.service_details(web)),
        ("migrations list", views.workloads.migration_table(ask(desk, "GET", "/api/migrations"), 0)),
        ("migrations show web", views.workloads.migration_details(move)),
        ("policy get", views.workloads.policy_table(ask(desk, "GET", "/api/organizations")["organizations"])),
        ("tokens list", views.api_tokens.token_table(ask(desk, "GET", "/api/tokens"))),
        ("alerts list", views.events.alert_table(ask(desk, "GET", "/api/alerts"))),
        ("events", views.events.event_lines(ask(desk, "GET", "/api/events"))),
        ("cluster stats", views.workers.stats_tables(ask(desk, "GET", "/api/workers/cluster/status"))),
    ):
        screen = Console(file=io.StringIO(), width=400)
        for table in tables:
            screen.print(table)
        shown, said = ageless(screen.file.getvalue()), ageless(desk.cli(*command.split()).stdout)  # type: ignore[attr-defined]
        assert shown == [line for line in said if line.split()[0] not in NOT_ANSWERED], command
    assert views.top.page(ask(desk, "GET", "/api/cluster"))


def ageless(text: str) -> list[str]:
    """The lines that say something, without how long ago anything was and how wide the columns are for it."""
    return [" ".join(AGE.sub("_", line).split()) for line in text.splitlines() if line.strip()]


def test_events_are_read_on_from_the_last(desk: Desk) -> None:
    first = ask(desk, "GET", "/api/events?since=0&limit=2")
    assert first["beginsAfter"] is None
    rest = ask(desk, "GET", f"/api/events?since={first['events'][-1]['seq']}")
    assert [event["seq"] for event in first["events"] + rest["events"]] == sorted(
        event["seq"] for event in ask(desk, "GET", "/api/events")["events"]
    )


def test_a_worker_is_cordoned_and_its_alerts_are_silenced(desk: Desk) -> None:
    one, hour = f"/api/workers/{desk.ids['w2']}", {"for": "1h", "reason": "new fan"}
    cordoned = ask(desk, "POST", f"{one}/cordon", reason="odd latencies")
    assert (cordoned["cordonReason"], cordoned["status"]) == ("odd latencies", "active")
    silenced: dict[str, Any] = ask(desk, "POST", f"{one}/silence", **hour)  # type: ignore[arg-type]
    assert silenced["alertsSilencedReason"] == "new fan"
    shown = ask(desk, "GET", one)
    assert {field: shown[field] for field in silenced if field != "updatedAt"} == {
        field: value for field, value in silenced.items() if field != "updatedAt"
    }
    assert ask(desk, "POST", f"{one}/uncordon")["cordonedAt"] is None
    assert ask(desk, "POST", f"{one}/uncordon")["cordonedAt"] is None, "nothing to do"
    assert ask(desk, "POST", f"{one}/unsilence")["alertsSilencedUntil"] is None
    assert "for" in ask(desk, "POST", f"{one}/silence", 400)
    nobody = "/api/workers/00000000-0000-4000-8000-000000000000"
    for verb, body in (("cordon", {}), ("uncordon", {}), ("silence", hour), ("unsilence", {})):
        ask(desk, "POST", f"{nobody}/{verb}", 404, **body)
    told = [(event["kind"], event["actor"]) for event in ask(desk, "GET", "/api/events")["events"][-4:]]
    kinds = ("cordoned", "alerts_silenced", "uncordoned", "alerts_unsilenced")
    assert told == [(kind, "token:desk") for kind in kinds]


def test_what_is_decided_is_done_and_said(desk: Desk) -> None:
    fail(desk)
    [migration] = ask(desk, "GET", "/api/migrations")["migrations"]
    one = f"/api/migrations/{migration['id']}"
    assert ask(desk, "POST", f"{one}/cancel")["state"] == "cancelled"
    assert "is cancelled" in ask(desk, "POST", f"{one}/retry", 409)
    assert "no migration" in ask(desk, "POST", "/api/migrations/none/approve", 404)
    pause = ask(desk, "GET", "/api/migrations")["pause"]
    assert (pause["pausedBy"], pause["reason"]) == ("token:desk", "night")
    assert ask(desk, "POST", "/api/migrations/resume") == {"wasPaused": True, "lifted": []}
    organization = ask(desk, "GET", "/api/organizations")["organizations"][0]
    policy = f"/api/organizations/{organization['slug']}/policy"
    assert ask(desk, "PUT", policy, policy="manual")["policy"] == "manual"
    assert ask(desk, "GET", "/api/organizations")["organizations"][0]["policy"] == "manual"
    worker = f"/api/workers/{desk.ids['w2']}"
    assert ask(desk, "PATCH", worker, pool="gpu")["name"] == "w2"
    assert "gpu" in json.dumps(desk.fleet.connection.execute("SELECT to_jsonb(w) FROM container_workers w").fetchall())
    assert ask(desk, "POST", f"{worker}/revoke", reason="sold")["tokenRevokedReason"] == "sold"
    assert "revoked already" in ask(desk, "POST", f"{worker}/revoke", 409)
    assert "is revoked" in ask(desk, "POST", f"{worker}/rotate-token", 409)
    look(desk.fleet.context)
    actors = {
        event["actor"] for event in ask(desk, "GET", "/api/events")["events"] if event["kind"] != "status_changed"
    }
    assert "token:desk" in actors


def test_tokens_are_made_and_revoked(desk: Desk) -> None:
    made = ask(desk, "POST", "/api/tokens", name="ci", role="viewer", ttl="1d")
    with httpx.Client(base_url=desk.api.base_url, headers=bearer(made["token"]), timeout=PATIENCE_SECONDS) as api:
        assert api.get("/api/services").status_code == 200
        assert api.post("/api/migrations/resume").status_code == 403
        assert ask(desk, "DELETE", "/api/tokens/ci")["revokedBy"] == "token:desk"
        assert api.get("/api/services").status_code == 401
    assert "there is a token desk already" in ask(
        desk, "POST", "/api/tokens", 409, name="desk", role="viewer", ttl="never"
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "/api/migrations?state=lost", {}, "state"),
        ("GET", "/api/migrations?limit=0", {}, "limit"),
        ("GET", "/api/events?since=-1", {}, "since"),
        ("GET", "/api/services?worker=%00", {}, "worker"),
        ("POST", "/api/migrations/pause", {"for": "soon"}, "for"),
        ("POST", "/api/migrations/pause", {"until": "now"}, "until: there is no such field"),
        ("PUT", "/api/organizations/acme/policy", {"policy": "sometimes"}, "policy"),
        ("POST", "/api/tokens", {"name": "a b", "role": "viewer", "ttl": "1d"}, "name"),
        ("POST", "/api/tokens", {"name": "ab", "role": "root", "ttl": "1d"}, "role"),
        ("POST", "/api/tokens", {"name": "ab", "role": "admin"}, "ttl"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    desk: Desk, method: str, path: str, body: dict[str, Any], said: str
) -> None:
    assert ask(desk, method, path, 400, **body).startswith(said)


@pytest.mark.parametrize("body", [b"garbage", b'{"until": "now"}'])
def test_an_order_without_fields_takes_none(desk: Desk, body: bytes) -> None:
    ask(desk, "POST", "/api/migrations/pause")
    answer = desk.api.post("/api/migrations/resume", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "the body: nothing is read of it: leave it out"
    assert ask(desk, "GET", "/api/migrations")["pause"], "nothing was done"


def test_an_event_of_any_number_is_read_on_from(desk: Desk) -> None:
    assert ask(desk, "GET", f"/api/events?since={2**63 - 1}")["events"] == []


def test_values_of_variables_are_told_nobody_and_labels_and_commands_administrators_alone(desk: Desk) -> None:
    desk.fleet.deploy("db", to="w2", environment={"A": "secret1"}, labels={"b": "secret2"}, command=("--c=secret3",))
    tokens = {role: api_tokens.create(desk.fleet.context, TESTS, role, role, None)[1] for role in Role}
    for path in (f"/api/workers/{desk.ids['w2']}/why", "/api/services", "/api/services/db"):
        for role, token in tokens.items():
            told = desk.api.get(path, headers=bearer(token)).text
            assert '"db"' in told
            seen = {secret for secret in ("secret1", "secret2", "secret3") if secret in told}
            assert seen == ({"secret2", "secret3"} if role is Role.ADMIN else set()), (path, role)


def test_the_table_has_each_operation_once() -> None:
    entries = [(route.method, route.path) for route in TABLE]
    assert len(entries) == len(set(entries))
