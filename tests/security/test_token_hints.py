"""Whose token is refused is told how to get a good one, an administrator otherwise than a worker."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest

from skyctl.api.app import ROUTES
from tests.conftest import SECRET, Process
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    add_user,
    add_worker,
    admin_token,
    bearer,
    worker_token,
)

SIGN_IN, INSTALL = "sign in to the panel as an administrator", "skyctl workers install-script"
OF_THE_PANEL = "a-secret-of-another-panel-that-is-long-enough-for-hs256"


@pytest.fixture
def api(serve: Callable[..., tuple[str, Process]]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def worker_id(connection: psycopg.Connection) -> UUID:
    return add_worker(connection)


def routes(*who: str) -> list[tuple[str, str]]:
    return [(method, path) for path, of in ROUTES.items() for method, each in of.items() if each.who in who]


def refusal(api: httpx.Client, method: str, path: str, worker_id: UUID, headers: dict[str, str]) -> str:
    """Why a request is refused, and what is to be done."""
    at = path.replace("{id}", str(worker_id)).replace("{sha256}", "a" * 64)
    answer = api.request(method, at, headers=headers, json=LOAD if method == "POST" else None)
    assert answer.status_code in (401, 403), (method, path, answer.text)
    message: str = answer.json()["error"]["message"]
    return message


def refused_of_administrators(connection: psycopg.Connection, worker_id: UUID) -> dict[str, dict[str, str]]:
    """Headers with tokens that are no, or no good, administrator's."""
    now = int(datetime.now(UTC).timestamp())
    user_id, email = add_user(connection)
    good: dict[str, Any] = {"userId": str(user_id), "email": email, "iat": now, "exp": now + 3600}
    said = {
        "expired": good | {"exp": now - 5},
        "endless": {claim: value for claim, value in good.items() if claim != "exp"},
        "of nobody": good | {"userId": "x"},
        "of a user who is gone": good | {"userId": str(uuid4())},
        "of another kind": good | {"type": "admin"},
    }
    signed = {name: jwt.encode(claims, SECRET) for name, claims in said.items()}
    others = {
        "no token at all": "x",
        "longer than any": "x" * 5000,
        "of another secret": jwt.encode(good, OF_THE_PANEL),
        "of a user": admin_token(SECRET, connection, "user"),
        "of a worker": worker_token(SECRET, worker_id),
    }
    return {"absent": {}} | {name: bearer(token) for name, token in (signed | others).items()}


def test_an_administrator_is_told_how_to_get_a_token_and_not_to_install_anything(
    api: httpx.Client, connection: psycopg.Connection, worker_id: UUID
) -> None:
    for method, path in routes("admin", "metrics"):
        for what, headers in refused_of_administrators(connection, worker_id).items():
            message = refusal(api, method, path, worker_id, headers)
            assert (SIGN_IN in message, INSTALL in message) == (True, False), (method, path, what, message)


def test_whoever_has_a_token_of_another_secret_is_told_of_the_secret(
    api: httpx.Client, connection: psycopg.Connection, worker_id: UUID
) -> None:
    headers = refused_of_administrators(connection, worker_id)["of another secret"]
    assert "JWT_SECRET" in refusal(api, "GET", "/api/workers", worker_id, headers)


def test_whoever_may_read_the_metrics_is_told_of_their_token(api: httpx.Client, worker_id: UUID) -> None:
    for headers in ({}, bearer("x")):
        assert "SKYCTL_METRICS_TOKEN" in refusal(api, "GET", "/metrics", worker_id, headers)


def test_a_worker_is_told_how_to_get_a_token_and_not_to_sign_in(
    api: httpx.Client, connection: psycopg.Connection, worker_id: UUID
) -> None:
    tokens = {
        "absent": {},
        "no token at all": bearer("x"),
        "an administrator's": bearer(admin_token(SECRET, connection)),
    }
    for method, path in routes("worker"):
        for what, headers in tokens.items():
            message = refusal(api, method, path, worker_id, headers)
            assert (INSTALL in message, SIGN_IN in message) == (True, False), (method, path, what, message)
