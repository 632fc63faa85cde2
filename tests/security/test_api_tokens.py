"""Tokens of the API: made and revoked by command, each good for its role and no more, known by nothing but a hash."""

import json
import re
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest

from skyctl.api.app import ROUTES
from skyctl.domain.api_tokens import PREFIX, Role
from skyctl.domain.engine import SwarmJoin
from skyctl.operations.admin import api_tokens
from skyctl.operations.agents import install_links, invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Cli, Process
from tests.support.answering import answering
from tests.support.fakes import FakeEngine
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    REGISTRATION,
    TESTS,
    add_worker,
    admin_token,
    bearer,
    eventually,
    worker_token,
)

Serve = Callable[..., tuple[str, Process]]
HOLDERS = (
    "nobody",
    "unknown",
    "worker",
    "expired",
    "revoked",
    "viewer",
    "operator",
    "admin",
    "user of the panel",
    "administrator of the panel",
)
ALLOWED = {
    Role.VIEWER: {"viewer", "operator", "admin", "administrator of the panel"},
    Role.OPERATOR: {"operator", "admin", "administrator of the panel"},
    Role.ADMIN: {"admin", "administrator of the panel"},
}
REFUSED = {"nobody": 401, "unknown": 401, "expired": 401, "revoked": 401}
OF_ROLES = [
    (method, path, Role(operation.who))
    for path, methods in ROUTES.items()
    for method, operation in methods.items()
    if operation.who in list(Role)
]


ENDS_THOSE_OF_THE_PANEL = "/api/tokens/end-administrators"


class Desk(NamedTuple):
    """A running API, and a token of each kind."""

    api: httpx.Client
    tokens: dict[str, str]


@pytest.fixture
def desk(serve: Serve, context: Context, connection: psycopg.Connection) -> Iterator[Desk]:
    made = {role.value: api_tokens.create(context, TESTS, f"t-{role.value}", role, None)[1] for role in Role}
    for name in ("expired", "revoked"):
        made[name] = api_tokens.create(context, TESTS, name, Role.ADMIN, timedelta(days=1))[1]
    connection.execute("UPDATE api_tokens SET expires_at = now() WHERE name = 'expired'")
    api_tokens.revoke(context, TESTS, "revoked")
    made["unknown"] = PREFIX + "x" * 43
    made["administrator of the panel"] = admin_token(SECRET, connection)
    made["user of the panel"] = admin_token(SECRET, connection, "user")
    made["worker"] = worker_token(SECRET, add_worker(connection))
    url, _ = serve()
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    monitor = answering(replace(context, engine=lambda: engine))
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client, monitor:
        yield Desk(client, made)


def ask(desk: Desk, method: str, path: str, holder: str) -> httpx.Response:
    headers = bearer(desk.tokens[holder]) if holder != "nobody" else {}
    with desk.api.stream(method, re.sub("{\\w+}", str(uuid4()), path), headers=headers) as answer:
        if answer.headers["content-type"] != "text/event-stream":  # which has no end
            answer.read()
        return answer


def test_every_operation_for_every_holder(desk: Desk) -> None:
    assert len(OF_ROLES) >= 8
    for method, path, role in sorted(OF_ROLES, key=lambda each: each[1] == ENDS_THOSE_OF_THE_PANEL):
        # who is refused comes first, and of the others the panel's administrators
        for holder in sorted(HOLDERS, key=lambda each: (each in ALLOWED[role], not each.endswith("of the panel"))):
            status = ask(desk, method, path, holder).status_code
            if holder in ALLOWED[role]:
                assert status in (200, 400, 404, 409), f"{holder}: {method} {path}"
            else:
                assert status == REFUSED.get(holder, 403), f"{holder}: {method} {path}"


def test_each_is_told_who_they_are(desk: Desk) -> None:
    for holder in ALLOWED[Role.VIEWER]:
        me = ask(desk, "GET", "/api/me", holder).json()["data"]
        of_panel = holder == "administrator of the panel"
        assert me["role"] == ("admin" if of_panel else holder)
        assert of_panel or me["who"] == f"token:t-{holder}"
        assert me["version"] == version("skyctl")


def test_metrics_are_for_whoever_may_see(desk: Desk) -> None:
    for holder in HOLDERS:
        expected = 200 if holder in ALLOWED[Role.VIEWER] else REFUSED.get(holder, 403)
        assert ask(desk, "GET", "/metrics", holder).status_code == expected, holder


def test_what_is_refused_says_why_and_what_to_do(desk: Desk) -> None:
    words = {holder: ask(desk, "DELETE", "/api/workers/{id}", holder).json()["error"]["message"] for holder in HOLDERS}
    assert words["unknown"].startswith("the token is not known here: ")
    assert words["expired"].startswith("the token expired is expired: ")
    assert words["revoked"].startswith("the token revoked is revoked: ")
    assert words["viewer"].startswith("the token t-viewer is of the role viewer, this takes admin: ")
    for holder in ("unknown", "expired", "revoked", "viewer"):
        assert words[holder].endswith("have one made: skyctl tokens create NAME --role admin")
    assert not any(desk.tokens[holder] in said for holder in desk.tokens for said in words.values())


def test_a_worker_cannot_be_one_by_a_token_of_the_api(desk: Desk) -> None:
    for path, body in ((f"/api/workers/{uuid4()}/heartbeat", LOAD), ("/api/workers/register", REGISTRATION)):
        assert desk.api.post(path, headers=bearer(desk.tokens["admin"]), json=body).status_code == 401


def test_a_token_is_made_used_shown_and_revoked(cli: Cli, serve: Serve, connection: psycopg.Connection) -> None:
    made = cli("tokens", "create", "ci", "--role", "operator")
    assert made.returncode == 0
    token = made.stdout.strip()
    assert re.fullmatch(PREFIX + r"[\w-]{43}", token)
    stored = connection.execute("SELECT api_tokens::text FROM api_tokens").fetchone()
    assert stored
    assert token[len(PREFIX) :] not in stored[0]
    worker_id = add_worker(connection, status="active")
    url, process = serve()
    with httpx.Client(base_url=url, headers=bearer(token), timeout=PATIENCE_SECONDS) as api:
        assert api.post(f"/api/workers/{worker_id}/drain").status_code == 200
        (listed,) = json.loads(cli("tokens", "list", "-o", "json").stdout)["tokens"]
        assert (listed["name"], listed["role"], listed["state"]) == ("ci", "operator", "good")
        assert listed["lastUsedFrom"] == "127.0.0.1"
        assert listed["lastUsedAt"] > listed["madeAt"]
        table = cli("tokens", "list").stdout.splitlines()
        assert table[0].split() == ["NAME", "ROLE", "STATE", "EXPIRES", "MADE", "BY", "LAST", "USED"]
        assert "89d 23h 59m" in table[1]
        assert table[1].endswith("ago from 127.0.0.1")
        assert cli("tokens", "revoke", "ci", "--yes").stderr == "ci is revoked\n"
        assert api.get("/api/workers").status_code == 401, "from the next request on"
    assert cli("tokens", "list").stdout == "No tokens.\n"
    assert [each["state"] for each in json.loads(cli("tokens", "list", "--all", "-o", "json").stdout)["tokens"]] == [
        "revoked"
    ]
    kinds = connection.execute("SELECT kind, actor, reason FROM worker_events ORDER BY seq").fetchall()
    assert [row[0] for row in kinds] == ["api_token_made", "drain_requested", "api_token_revoked"]
    assert kinds[1][1] == "token:ci"
    activities = connection.execute("SELECT count(*) FROM activity_logs WHERE metadata::text LIKE '%token:ci%'")
    assert activities.fetchone() == (1,)
    said = "".join(process.seen)
    assert token not in said


def test_the_usual_mistakes(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert cli("tokens", "create", "ci", "--ttl", "never", "--file", str(file)).stdout == ""
    assert file.read_text().startswith(PREFIX)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = cli("tokens", "create", "ci")
    assert (again.returncode, again.stdout) == (4, "")
    assert again.stderr == ("error: there is a token ci already\nhint: revoke it first: skyctl tokens revoke ci\n")
    unknown = cli("tokens", "revoke", "cd", "--yes")
    assert unknown.returncode == 3
    assert unknown.stderr == "error: there is no token 'cd'\nhint: see `skyctl tokens list --all`\n"
    assert cli("tokens", "revoke", "ci", "--yes").returncode == 0
    assert cli("tokens", "revoke", "ci", "--yes").returncode == 4
    assert cli("tokens", "create", "ci").returncode == 0, "the name is free again"
    for wrong in (["a b"], ["x" * 65], ["x", "--ttl", "soon"], ["x", "--role", "root"]):
        refused = cli("tokens", "create", *wrong)
        assert (refused.returncode, refused.stdout) == (2, ""), wrong


HELD_UP = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize(
    ("path", "status"), [("/api/workers", 200), (f"/api/workers/{uuid4()}", 404)], ids=["there", "missing"]
)
def test_who_was_let_in_waits_for_no_stranger(
    desk: Desk, context: Context, connection: psycopg.Connection, path: str, status: int
) -> None:
    """Whatever it was answered: a script that asked for what is not there is known as well."""
    assert ask(desk, "GET", path, "viewer").status_code == status
    link = install_links.make(context, TESTS, invitations.invite(context, TESTS).worker_id, insecure=True)
    with ThreadPoolExecutor() as pool:
        with connection.transaction():
            connection.execute("SELECT * FROM install_links FOR UPDATE")
            stranger = pool.submit(httpx.get, f"{desk.api.base_url}{urlsplit(link).path}", timeout=PATIENCE_SECONDS)
            eventually(lambda: connection.execute(HELD_UP).fetchone() == (1,))
            assert ask(desk, "GET", path, "viewer").status_code == status
            assert connection.execute(HELD_UP).fetchone() == (1,), "the stranger of this address has its turn still"
        stranger.result()


def test_guesses_are_all_refused(desk: Desk) -> None:
    assert ask(desk, "GET", "/api/workers", "viewer").status_code == 200
    guesses = [httpx.Client(base_url=desk.api.base_url, timeout=PATIENCE_SECONDS) for _ in range(4)]
    try:
        for number in range(20):
            guess = bearer(f"{PREFIX}{number:043}")
            assert guesses[number % 4].get("/api/workers", headers=guess).status_code == 401
            assert ask(desk, "GET", "/api/workers", "viewer").status_code == 200
    finally:
        for client in guesses:
            client.close()


def test_a_use_is_noted_once_a_minute(desk: Desk, connection: psycopg.Connection) -> None:
    used = "SELECT last_used_at, xmin::text FROM api_tokens WHERE name = 't-viewer'"
    assert ask(desk, "GET", "/api/workers", "viewer").status_code == 200
    first = connection.execute(used).fetchone()
    assert first
    assert ask(desk, "GET", "/api/workers", "viewer").status_code == 200
    assert connection.execute(used).fetchone() == first
    connection.execute("UPDATE api_tokens SET last_used_at = last_used_at - interval '1 minute'")
    assert ask(desk, "GET", "/api/workers", "viewer").status_code == 200
    eventually(lambda: (connection.execute(used).fetchone() or first)[0] > first[0])
