"""What a proxy says of a client is an address, or it is nothing."""

from collections.abc import Callable
from uuid import UUID

import httpx
import psycopg
import pytest

from skyctl.domain.addresses import client_address
from tests.conftest import SECRET, Cli, Process
from tests.support.helpers import PATIENCE_SECONDS, add_worker, admin_token, bearer

pytestmark = pytest.mark.in_process

Serve = Callable[..., tuple[str, Process]]

SAID = {
    "192.0.2.7": "192.0.2.7",
    "2001:DB8:0::7": "2001:db8::7",
    "::ffff:192.0.2.7": "192.0.2.7",
    "6.6.6.6, 192.0.2.7": "192.0.2.7",
    "fe80::1%eth0": None,
    "9" * 2000: None,
    "192.0.2.7.example.com": None,
    "192.0.2.7 or so": None,
    "<script>alert(1)</script>": None,
    "\x85\x9b31m": None,
    "unknown": None,
    "_hidden": None,
    "999.1.1.1": None,
    "192.0.2.7/24": None,
    "192.0.2.007": None,
    "3221225991": None,
    "[2001:db8::7": None,
    "[fe80::1%25eth0]:80": None,
    "'; DROP TABLE users; --": None,
}


def test_what_is_no_address_is_not_kept_as_one(serve: Serve, connection: psycopg.Connection) -> None:
    url, _ = serve("--proxy", "127.0.0.1")
    headers = bearer(admin_token(SECRET, connection))
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        for said, kept in SAID.items():
            worker_id = add_worker(connection)
            forwarded = httpx.Headers(headers | {"X-Forwarded-For": said}, encoding="latin-1")
            assert client.post(f"/api/workers/{worker_id}/drain", headers=forwarded).status_code == 200, said
            assert logged(connection, worker_id) == kept, said


def test_only_one_header_is_asked_and_many_are_no_matter(serve: Serve, connection: psycopg.Connection) -> None:
    url, _ = serve("--proxy", "127.0.0.1")
    headers = [("Authorization", f"Bearer {admin_token(SECRET, connection)}")]
    for others, kept in (
        ([("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")], "127.0.0.1"),
        ([("X-Forwarded-For", "x" * 30)] * 90, None),
    ):
        worker_id = add_worker(connection)
        drain = f"{url}/api/workers/{worker_id}/drain"
        assert httpx.post(drain, headers=headers + others, timeout=PATIENCE_SECONDS).status_code == 200
        assert logged(connection, worker_id) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("2001:db8::7 50000 22", "2001:db8::7"),
        ("fe80::1%eth0 50000 2001:db8::1 22", "fe80::1"),
        ("x" * 200 + " 1", "local"),
        ("", "local"),
    ],
)
def test_the_address_of_an_ssh_client_is_one_as_well(
    cli: Cli, connection: psycopg.Connection, said: str, kept: str
) -> None:
    worker_id = add_worker(connection, name="w")
    drained = cli("workers", "drain", "w", SSH_CONNECTION=said)
    assert drained.returncode == 0, drained.stderr
    assert logged(connection, worker_id) == kept


def test_no_text_is_more_than_an_address() -> None:
    for said, kept in SAID.items():
        if "," not in said:
            assert client_address(said) == kept
    assert client_address(None) is None


def logged(connection: psycopg.Connection, worker_id: UUID) -> object:
    query = "SELECT DISTINCT ip_address FROM activity_logs WHERE entity_id = %s OR metadata::text LIKE %s"
    [(address,)] = connection.execute(query, (str(worker_id), f"%{worker_id}%")).fetchall()
    return address
