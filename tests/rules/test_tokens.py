"""Tokens: what is issued is accepted, and nothing else."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyctl.domain.errors import Forbidden, SkyctlError, Unauthorized
from skyctl.domain.tokens import Key
from skyctl.rules import tokens

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SECRET = "x" * 64
KEYS = [Key(SECRET)]


def test_a_workers_token_is_the_panels() -> None:
    worker_id = uuid4()
    token, expires_at = tokens.issue_worker_token(SECRET, worker_id, "admin-1", NOW)
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert claims["workerId"] == str(worker_id)
    assert (claims["type"], claims["generatedBy"]) == ("worker", "admin-1")
    assert datetime.fromisoformat(claims["generatedAt"]) == NOW
    assert expires_at - NOW == timedelta(days=3650)
    assert tokens.verify_worker_token(KEYS, token, NOW) == (worker_id, expires_at, KEYS[0])
    assert tokens.fingerprint(token) == hashlib.sha256(token.encode()).hexdigest()


def test_the_panels_tokens_are_accepted() -> None:
    worker_id, user_id = uuid4(), uuid4()
    made = jwt.encode({"workerId": str(worker_id), "type": "worker", "generatedBy": "u", "generatedAt": 1}, SECRET)
    assert tokens.verify_worker_token(KEYS, made, NOW) == (worker_id, None, KEYS[0])
    admin = jwt.encode({"userId": str(user_id), "email": "a@b.c", "exp": NOW + timedelta(days=7)}, SECRET)
    assert tokens.verify_admin_token(KEYS, admin, NOW) == user_id


def test_a_token_ends_at_its_expiry() -> None:
    token, expires_at = tokens.issue_worker_token(SECRET, uuid4(), "a", NOW)
    tokens.verify_worker_token(KEYS, token, expires_at - timedelta(seconds=1))
    with pytest.raises(Unauthorized, match="expired"):
        tokens.verify_worker_token(KEYS, token, expires_at)


def unsigned(claims: dict[str, object]) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


@pytest.mark.parametrize(
    ("token", "error"),
    [
        (jwt.encode({"workerId": str(uuid4()), "type": "worker"}, "y" * 40), Unauthorized),
        (jwt.encode({"workerId": str(uuid4()), "type": "worker"}, SECRET, algorithm="HS512"), Unauthorized),
        (unsigned({"workerId": str(uuid4()), "type": "worker"}), Unauthorized),
        (jwt.encode({"workerId": "nobody", "type": "worker"}, SECRET), Unauthorized),
        (jwt.encode({"workerId": 7, "type": "worker"}, SECRET), Unauthorized),
        (jwt.encode({"workerId": str(uuid4()), "type": "worker", "exp": 10**30}, SECRET), Unauthorized),
        (jwt.encode({"workerId": str(uuid4()), "type": "admin"}, SECRET), Forbidden),
        (jwt.encode({"workerId": str(uuid4())}, SECRET), Forbidden),
        (jwt.encode({"userId": str(uuid4()), "email": "a@b.c"}, SECRET), Forbidden),
        ("", Unauthorized),
        ("a.b.c", Unauthorized),
    ],
)
def test_other_tokens_are_refused(token: str, error: type[SkyctlError]) -> None:
    with pytest.raises(error):
        tokens.verify_worker_token(KEYS, token, NOW)


def test_a_workers_token_is_no_administrators() -> None:
    token, _ = tokens.issue_worker_token(SECRET, uuid4(), "a", NOW)
    with pytest.raises(Forbidden):
        tokens.verify_admin_token(KEYS, token, NOW)


@given(st.text(max_size=300))
def test_no_text_is_anything_but_refused(text: str) -> None:
    with pytest.raises((Unauthorized, Forbidden)):
        tokens.verify_worker_token(KEYS, text, NOW)


@given(st.data(), st.uuids())
def test_a_changed_token_is_refused(data: st.DataObject, worker_id: UUID) -> None:
    token, _ = tokens.issue_worker_token(SECRET, worker_id, "a", NOW)
    start = data.draw(st.integers(0, len(token) - 2))  # the last character has bits that mean nothing
    changed = token[:start] + ("A" if token[start] != "A" else "B") + token[start + 1 :]
    with pytest.raises((Unauthorized, Forbidden)):
        tokens.verify_worker_token(KEYS, changed, NOW)
    assert not tokens.same(tokens.fingerprint(token), tokens.fingerprint(changed))
