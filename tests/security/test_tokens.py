"""Tokens: what a host holds tells it nothing of the administrators' secret, and neither passes as the other."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from skyctl.domain.errors import Unauthorized
from skyctl.domain.tokens import Key
from skyctl.operations.agents import invitations
from skyctl.operations.monitor import token_rotation
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from tests.conftest import SECRET, Cli, Process
from tests.support.helpers import (
    LOAD,
    PATIENCE_SECONDS,
    REGISTRATION,
    TESTS,
    add_user,
    add_worker,
    admin_token,
    bearer,
    worker_token,
)

pytestmark = pytest.mark.in_process

Serve = Callable[..., tuple[str, Process]]
WEAK = "swordfish"
LIST = "/api/workers"


@pytest.fixture
def api(serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as client:
        yield client


def asks(api: httpx.Client, token: str) -> tuple[int, str]:
    """The answer to an administrator's request: its status, and why."""
    answer = api.get(LIST, headers=bearer(token))
    return answer.status_code, "" if answer.is_success else answer.json()["error"]["message"]


def join(api: httpx.Client, token: str, **metadata: object) -> httpx.Response:
    body = REGISTRATION | {"metadata": {"takesTokens": True} | metadata}
    return api.post("/api/workers/register", headers=bearer(token), json=body)


def beat(api: httpx.Client, worker_id: object, token: str) -> httpx.Response:
    return api.post(f"/api/workers/{worker_id}/heartbeat", headers=bearer(token), json=LOAD)


def of_tokens(cli: Cli) -> str:
    """What the doctor finds of the workers' tokens."""
    checks = json.loads(cli("doctor", "-o", "json").stdout)["checks"]
    return next(str(check["found"]) for check in checks if check["name"] == "tokens")


def signed_by(secret: str, token: str) -> bool:
    """What a host tries offline with the token that it holds."""
    text, _, signature = token.rpartition(".")
    tried = base64.urlsafe_b64encode(hmac.digest(secret.encode(), text.encode(), hashlib.sha256)).rstrip(b"=")
    return tried.decode() == signature


def claims(user_id: UUID, **others: object) -> dict[str, Any]:
    now = datetime.now(UTC)
    kept = {"userId": str(user_id), "email": "a@b.c", "iat": now, "exp": now + timedelta(days=7)} | others
    return {claim: value for claim, value in kept.items() if value is not None}


@pytest.mark.parametrize("secret", [SECRET, WEAK], ids=["a strong secret", "a secret that can be guessed"])
def test_no_token_that_a_host_gets_is_a_sign_of_the_administrators_secret(serve: Serve, cli: Cli, secret: str) -> None:
    panels = {"SKYCTL_JWT_SECRET": "", "JWT_SECRET": secret}
    with httpx.Client(base_url=serve(**panels)[0], timeout=PATIENCE_SECONDS) as api:
        made = json.loads(cli("workers", "install-script", "--insecure", "-o", "json", **panels).stdout)
        assert join(api, made["token"]).status_code == 201
        assert cli("workers", "rotate-token", made["workerId"], **panels).returncode == 0
        handed = beat(api, made["workerId"], made["token"]).json()["newToken"]
        link = cli("workers", "install-script", "--link", "--insecure", "--api-url", str(api.base_url), **panels)
        script = api.get(link.stdout.split()[2]).text
    fetched = next(word for word in script.replace('"', " ").replace("'", " ").split() if word.startswith("eyJ"))
    assert [signed_by(secret, token) for token in (made["token"], handed, fetched)] == [False] * 3


def test_every_serve_of_a_database_and_a_secret_knows_the_same_key(serve: Serve, cli: Cli) -> None:
    panels = {"SKYCTL_JWT_SECRET": "", "JWT_SECRET": WEAK}
    for folder in ("/nonexistent/first", "/nonexistent/second"):
        with httpx.Client(base_url=serve(**panels, SKYCTL_DATA_DIR=folder)[0], timeout=PATIENCE_SECONDS) as api:
            made = json.loads(cli("workers", "install-script", "--insecure", "-o", "json", **panels).stdout)
            assert join(api, made["token"]).status_code == 201


def test_a_former_token_is_good_until_it_is_replaced(
    api: httpx.Client, context: Context, connection: psycopg.Connection, cli: Cli
) -> None:
    worker_id = uuid4()
    former = worker_token(SECRET, worker_id)
    assert signed_by(SECRET, former)
    assert join(api, former).status_code == 201
    assert beat(api, worker_id, former).status_code == 200
    assert "1 signed by the administrators' secret: worker-" in of_tokens(cli)
    lease = leadership.lead(context, "tests", lambda _: True)
    assert lease
    connection.execute("UPDATE container_workers SET status = 'active'")
    assert len(token_rotation.rotate_due(lease)) == 1
    new = beat(api, worker_id, former).json()["newToken"]
    assert not signed_by(SECRET, new)
    assert beat(api, worker_id, new).status_code == 200
    assert beat(api, worker_id, former).status_code == 401
    assert "the administrators' secret" not in of_tokens(cli)


def test_long_after_the_upgrade_a_former_token_makes_no_worker(
    api: httpx.Client, connection: psycopg.Connection
) -> None:
    connection.execute("UPDATE skyctl_schema SET applied_at = now() - interval '91 d'")
    refused = join(api, worker_token(SECRET, uuid4()))
    assert (refused.status_code, "a former version" in refused.json()["error"]["message"]) == (401, True)
    worker_id = uuid4()
    issued = worker_token(SECRET, worker_id)
    add_worker(connection, issued, id=worker_id)
    assert join(api, issued).status_code == 201, "the panel has noted whose it is"


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")  # of the other algorithms
def test_neither_kind_of_token_passes_as_the_other(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    user_id, _ = add_user(connection)
    one = invitations.invite(context, TESTS)
    assert join(api, one.token).status_code == 201
    workers_key = context.keys.signing().secret
    workers = {"workerId": str(one.worker_id), "type": "worker"}
    for key, said, who in (
        (workers_key, claims(user_id), "an administrator by the workers' key"),
        (workers_key, claims(user_id) | workers, "both by the workers' key"),
        (workers_key, workers, "a worker by its own key, and not the token that is stored"),
        (SECRET, claims(user_id) | workers, "both by the administrators' secret"),
        (SECRET, claims(user_id, type="admin"), "another type"),
        (SECRET, claims(user_id, type=None, workerId=str(one.worker_id)), "no type"),
    ):
        token = jwt.encode(said, key)
        is_admin = who == "no type"
        assert (asks(api, token)[0] == 200) is is_admin, who
        assert join(api, token, machineId="m" * 64).status_code in (401, 403), who
        assert beat(api, one.worker_id, token).status_code in (401, 403), who
    for algorithm in ("HS384", "HS512"):
        assert asks(api, jwt.encode(claims(user_id), SECRET, algorithm=algorithm))[0] == 401
    assert asks(api, one.token) == (
        403,
        "the token is not an administrator's: sign in to the panel as an administrator, "
        "or have one made: skyctl tokens create NAME --role viewer",
    )


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ({"exp": None}, "the token has no exp, so that it would never end"),
        ({"exp": 31}, "the token is good for more than 30 days"),
        ({"exp": 31, "iat": None}, "the token is good for more than 30 days"),
        ({"exp": 20, "iat": -11}, "the token is good for more than 30 days"),
        ({"exp": -1}, "the token has expired"),
        ({"exp": "soon"}, "the token's exp is not a time"),
        ({"iat": 1}, "the token's iat is in the future"),
        ({"iat": "now"}, "the token's iat is not a time"),
        ({"iat": True}, "the token's iat is not a time"),
        ({"nbf": 1}, "the token is not good yet"),
        ({"nbf": [1]}, "the token's nbf is not a time"),
    ],
)
def test_an_administrators_token_has_an_end_and_a_beginning(
    api: httpx.Client, connection: psycopg.Connection, others: dict[str, Any], why: str
) -> None:
    now = int(datetime.now(UTC).timestamp())
    times = {
        claim: now + days * 86_400 if type(days) is int else days  # of whole days from now
        for claim, days in others.items()
    }
    said = {claim: value for claim, value in (claims(add_user(connection)[0]) | times).items() if value is not None}
    token = jwt.api_jws.encode(json.dumps(said, default=lambda at: int(at.timestamp())).encode(), SECRET)
    status, message = asks(api, token)
    assert (status, message.partition(":")[0].startswith(why)) == (401, True), message


@pytest.mark.parametrize("others", [{}, {"iat": None}, {"exp": timedelta(days=30)}, {"nbf": timedelta(seconds=-1)}])
def test_the_panels_own_tokens_are_good(
    api: httpx.Client, connection: psycopg.Connection, others: dict[str, timedelta | None]
) -> None:
    times = {claim: span and datetime.now(UTC) + span for claim, span in others.items()}
    assert asks(api, jwt.encode(claims(add_user(connection)[0], **times), SECRET)) == (200, "")


def test_administrators_tokens_are_ended_at_once(
    api: httpx.Client, serve: Serve, cli: Cli, connection: psycopg.Connection
) -> None:
    user_id, _ = add_user(connection)
    before, without = jwt.encode(claims(user_id), SECRET), jwt.encode(claims(user_id, iat=None), SECRET)
    one = json.loads(cli("workers", "install-script", "--insecure", "-o", "json").stdout)
    assert join(api, one["token"]).status_code == 201
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as other:
        assert [asks(at, token)[0] for at in (api, other) for token in (before, without)] == [200] * 4
        ended = cli("secrets", "end-admin-tokens", "--yes")
        assert (ended.returncode, "are refused" in ended.stderr) == (0, True)
        ahead = jwt.encode(claims(user_id, iat=datetime.now(UTC) + timedelta(seconds=30)), SECRET)
        for at in (api, other):
            for token in (before, without, ahead):
                status, message = asks(at, token)
                assert (status, "were ended by an administrator" in message) == (401, True)
        connection.execute("UPDATE skyctl_installation SET admin_tokens_from = admin_tokens_from - interval '1 minute'")
        later = claims(user_id, iat=datetime.now(UTC) + timedelta(seconds=2))
        for at in (api, other):
            assert asks(at, jwt.encode(later, SECRET))[0] == 200
    assert beat(api, one["workerId"], one["token"]).status_code == 200
    assert connection.execute("SELECT kind FROM worker_events ORDER BY seq DESC LIMIT 1").fetchone() == (
        "admin_tokens_ended",
    )
    logged = connection.execute("SELECT count(*) FROM activity_logs WHERE event_type LIKE '%admin_tokens_ended'")
    assert logged.fetchone() == (1,)


@pytest.mark.parametrize(
    "secret",
    [
        "changeme",
        "x" * 64,
        "ab" * 40,
        "changeme" * 8,
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "0123456789abcdef" * 2,
        "your-super-secret-jwt-key-that-you-must-change",
        "please_CHANGE-ME_before_production_2024",
    ],
)
def test_a_secret_that_can_be_guessed_is_refused_where_it_is_ours_and_told_where_it_is_the_panels(
    cli: Cli, start: Callable[..., Process], secret: str
) -> None:
    for command in (("serve", "--port", "0"), ("doctor",)):
        refused = cli(*command, SKYCTL_JWT_SECRET=secret)
        assert (refused.returncode, "SKYCTL_JWT_SECRET: the secret can be guessed" in refused.stderr) == (2, True)
        assert "JWT_SECRET" in refused.stderr.partition("hint: ")[2]
        assert secret not in refused.stderr + refused.stdout
    panels = {"SKYCTL_JWT_SECRET": "", "JWT_SECRET": secret}
    process = start("--quiet", "serve", "--port", "0", **panels)
    assert "JWT_SECRET" in process.until("action=weak_secret")
    told = cli("doctor", "-o", "json", **panels)
    [check] = [check for check in json.loads(told.stdout)["checks"] if check["name"] == "signing secret"]
    assert (check["state"], "JWT_SECRET can be guessed" in check["found"]) == ("failed", True)
    assert secret not in told.stdout + "".join(process.seen)


def test_a_kept_secret_that_was_replaced_by_a_weak_one_signs_nothing(cli: Cli, environment: dict[str, str]) -> None:
    own = {"SKYCTL_JWT_SECRET": ""}
    assert cli("workers", "install-script", "--insecure", **own).returncode == 0
    kept = Path(environment["SKYCTL_DATA_DIR"]) / "jwt-secret"
    kept.write_text("changeme\n")
    refused = cli("workers", "install-script", "--insecure", **own)
    assert (refused.returncode, "can be guessed" in refused.stderr) == (1, True)
    found = json.loads(cli("doctor", "-o", "json", **own).stdout)
    assert [check["state"] for check in found["checks"] if check["name"] == "signing secret"] == ["failed"]


def test_the_key_of_workers_is_hkdf_of_the_secret_and_the_salt() -> None:
    by_the_book = HKDF(SHA256(), 32, b"salt", b"skyctl: tokens of workers").derive(SECRET.encode()).hex()
    assert Key(SECRET).for_workers("salt") == Key(by_the_book, workers_only=True)
    assert Key(SECRET).for_workers("salt").id != Key(by_the_book).id


def test_a_secret_that_is_a_key_file_signs_nothing_and_is_no_error() -> None:
    pem = Key("-----BEGIN PUBLIC KEY-----\n" + "A" * 64 + "\n-----END PUBLIC KEY-----\n")
    with pytest.raises(Unauthorized):
        tokens.verify_worker_token([pem], worker_token(SECRET, uuid4()), datetime.now(UTC))


def test_administrators_of_both_secrets_are_let_in_while_one_follows_the_other(
    serve: Serve, connection: psycopg.Connection, context: Context
) -> None:
    one = invitations.invite(context, TESTS)
    url, _ = serve(SKYCTL_JWT_SECRET="another-secret-of-the-panel-from-today-on", SKYCTL_JWT_SECRET_PREVIOUS=SECRET)
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as api:
        assert asks(api, admin_token(SECRET, connection))[0] == 200
        assert asks(api, admin_token("another-secret-of-the-panel-from-today-on", connection))[0] == 200
        assert join(api, one.token).status_code == 201
        assert join(api, worker_token(SECRET, uuid4()), machineId="n" * 64).status_code == 201
