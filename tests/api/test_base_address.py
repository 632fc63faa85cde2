"""A client's base address may end in /api: every route is reached by it, as the panel's agent and ours ask."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from skyagent import settings as agent_settings
from skyctl.api.app import ROUTES
from skyctl.operations.agents import install_links, invitations, upgrades
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Process
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    REGISTRATION,
    TESTS,
    add_worker,
    admin_token,
    bearer,
    worker_token,
)

BASES = ["", "/", "/api", "/api/", "/api/api"]


@pytest.fixture
def url(serve: Callable[..., tuple[str, Process]]) -> str:
    return serve()[0]


@pytest.fixture
def token(connection: psycopg.Connection) -> Iterator[tuple[UUID, str]]:
    """A worker as the panel made it, and its token."""
    worker_id = add_worker(connection, name="w")
    issued = worker_token(SECRET, worker_id)
    connection.execute(
        "UPDATE container_workers SET auth_token_hash = encode(sha256(convert_to(%s, 'UTF8')), 'hex')", (issued,)
    )
    yield worker_id, issued


@pytest.mark.parametrize("base", BASES)
def test_each_route_is_reached(url: str, base: str, connection: psycopg.Connection, token: tuple[UUID, str]) -> None:
    """By what is no route of ours none is."""
    worker_id, _ = token
    headers = bearer(admin_token(SECRET, connection))
    with httpx.Client(headers=headers, timeout=PATIENCE_SECONDS) as client:
        for path, operations in dict[str, Any](ROUTES, **{"/healthz": {"GET": None}}).items():
            at = path.replace("{id}", str(worker_id)).replace("{sha256}", "a" * 64).replace("{secret}", "s")
            at = at.replace("{fingerprint}", "f" * 64)
            for method, operation in operations.items():
                lasts = operation is not None and (operation.waits or operation.stream)
                # nothing is to be changed, and nothing waited for
                who = {} if method == "GET" and not lasts else {"Authorization": ""}
                plain, based = (client.request(method, f"{url}{before}{at}", headers=who) for before in ("", base))
                assert (path, based.status_code) == (path, plain.status_code)
                assert "there is no such route" not in based.text, path
        for wrong in ("/apis/workers", "/api", "/nothing/api/workers"):
            assert client.get(f"{url}{base}{wrong}").json()["error"]["code"] == "NOT_FOUND", wrong


@pytest.mark.parametrize("base", BASES)
def test_the_panels_agent_beats_though_it_appends_what_its_address_has_already(
    url: str, base: str, connection: psycopg.Connection, token: tuple[UUID, str]
) -> None:
    """As all heartbeats, by the short way."""
    worker_id, issued = token
    beat = httpx.post(
        f"{url}{base}/api/workers/{worker_id}/heartbeat", json=LOAD, headers=bearer(issued), timeout=PATIENCE_SECONDS
    )
    assert (beat.status_code, beat.json()["message"]) == (200, "Heartbeat received")
    heard = connection.execute("SELECT last_heartbeat_at IS NOT NULL, current_load FROM container_workers").fetchone()
    assert heard == (True, LOAD)


@pytest.mark.parametrize("base", BASES)
def test_a_host_joins_by_it(url: str, base: str, context: Context) -> None:
    invitation = invitations.invite(context, TESTS)
    link = install_links.make(context, TESTS, invitation.worker_id, insecure=True)
    with httpx.Client(timeout=PATIENCE_SECONDS) as client:
        script = client.get(f"{url}{base}/install/{link.rpartition('/')[2]}")
        assert script.text.startswith("#!/bin/sh")
        assert client.get(f"{url}{base}/install/skyagent.tar.gz").content == upgrades.release().archive
        registered = client.post(
            f"{url}{base}/api/workers/register",
            json=REGISTRATION,
            headers=bearer(invitations.invite(context, TESTS).token),
        )
        assert registered.status_code == 201


@pytest.mark.parametrize("base", BASES)
def test_our_agent_asks_for_what_is_there(tmp_path: Path, base: str, url: str, token: tuple[UUID, str]) -> None:
    worker_id, issued = token
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"apiUrl": f"{url}{base}", "authToken": issued, "workerId": str(worker_id)}))
    assert agent_settings.load(file, {}).api_url == url
