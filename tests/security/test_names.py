"""Names are plain words: letters, digits, `.`, `-` and `_`. What a host says instead is kept apart; what people type
instead is refused; what the panel wrote is found by its id."""

from collections.abc import Callable
from uuid import UUID

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyctl.documents import http
from skyctl.domain import text
from skyctl.domain.cluster import Capacity, Registration
from skyctl.domain.errors import Refused, ValidationError
from skyctl.operations.agents import invitations
from skyctl.operations.agents.registration import register
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.rules import names
from tests.conftest import SECRET, Cli, Process
from tests.support.helpers import PATIENCE_SECONDS, REGISTRATION, TESTS, add_worker, admin_token, bearer

pytestmark = pytest.mark.in_process

ODD = [
    "$(touch x)",
    "a b",
    "a;b",
    "-rf",
    "--force",
    "é",
    "\u0430dmin",
    "a'b",
    'a"b',
    "a/b",
    "a:b",
    "~",
    "*",
    "a\u00a0b",
]
CONTROLS = ["a\nb", "a\u202eb", "a\u200bb", "a\u2066b", "a\x9bb", "\ufeffa", "a\U000e0041b", "a\u061cb", "a\u2028b"]


def host(hostname: str, **metadata: object) -> Registration:
    return Registration(hostname, "10.0.0.1", Capacity(2, 1024, 10), metadata)


@pytest.mark.parametrize("hostname", ODD)
def test_an_odd_hostname_is_kept_apart_and_the_worker_called_by_its_id(context: Context, hostname: str) -> None:
    invitation = invitations.invite(context, TESTS)
    worker = register(context, invitation.token, host(hostname)).worker
    assert (worker.name, worker.hostname) == (f"worker-{worker.id}",) * 2
    assert worker.metadata["reportedHostname"] == hostname
    again = register(context, invitation.token, host(hostname)).worker
    assert (again.name, again.hostname) == (worker.name, worker.hostname)
    renamed = register(context, invitation.token, host("plain-1.example_com")).worker
    assert (renamed.name, renamed.hostname) == ("worker-plain-1.example_com", "plain-1.example_com")
    assert "reportedHostname" not in renamed.metadata


def test_an_odd_hostname_leaves_the_name_that_an_administrator_gave(context: Context) -> None:
    invitation = invitations.invite(context, TESTS, "web-1")
    assert register(context, invitation.token, host("$(touch x)")).worker.name == "web-1"


def test_a_host_cannot_say_what_is_kept_of_another_hostname(context: Context) -> None:
    invitation = invitations.invite(context, TESTS)
    said = [host(hostname, reportedHostname="x") for hostname in ("plain", "a b")]
    plain, odd = (register(context, invitation.token, each).worker for each in said)
    assert "reportedHostname" not in plain.metadata
    assert odd.metadata["reportedHostname"] == "a b"


def test_a_name_that_was_made_of_an_odd_hostname_before_goes_with_it(
    context: Context, connection: psycopg.Connection
) -> None:
    """As a manager of an earlier version stored it."""
    invitation = invitations.invite(context, TESTS)
    connection.execute("UPDATE container_workers SET name = 'worker-$(x)', hostname = '$(x)'")
    assert register(context, invitation.token, host("$(x)")).worker.name == f"worker-{invitation.worker_id}"


@pytest.mark.parametrize("name", [*ODD, *CONTROLS, "", "x" * 256])
def test_a_name_that_is_typed_and_odd_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"^--name: ") as refusal:
        http.worker_name(name, "--name")
    assert refusal.value.hint.startswith("--name is 1 to 255 letters")
    assert not text.CONTROL.search(refusal.value.message)


@pytest.mark.parametrize("command", [["workers", "install-script"], ["workers", "bundle", "--output", "nowhere"]])
def test_the_commands_refuse_it(cli: Cli, connection: psycopg.Connection, command: list[str]) -> None:
    for name in ("$(touch x)", "a\u202eb"):
        refused = cli(*command, "--name", name)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: --name: ")
    assert connection.execute("SELECT count(*) FROM container_workers").fetchone() == (0,)


def test_the_api_refuses_it(serve: Callable[..., tuple[str, Process]], connection: psycopg.Connection) -> None:
    token = admin_token(SECRET, connection)
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS, headers=bearer(token)) as client:
        for name in ("$(touch x)", "a\u202eb", "-rf"):
            refused = client.post("/api/workers/generate-script", json={"name": name})
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == "VALIDATION_ERROR"
        assert client.post("/api/workers/generate-script", json={"name": "web-1.a_b"}).status_code == 200
    assert connection.execute("SELECT name FROM container_workers").fetchall() == [("web-1.a_b",)]


@pytest.mark.parametrize("hostname", CONTROLS)
def test_a_hostname_of_control_characters_is_refused(hostname: str) -> None:
    with pytest.raises(ValidationError, match=r"^hostname: "):
        http.registration(REGISTRATION | {"hostname": hostname})


def test_rows_of_the_panel_are_found_by_name_and_id(context: Context, connection: psycopg.Connection) -> None:
    for name in (*ODD, *CONTROLS):
        worker_id = add_worker(connection, name=name)
        assert lookup.find_worker(context, name).id == lookup.find_worker(context, str(worker_id)).id == worker_id


def test_a_taken_name_is_quoted_in_the_hint(context: Context) -> None:
    invitations.invite(context, TESTS, "web-1")
    with pytest.raises(Refused) as refusal:
        invitations.invite(context, TESTS, "web-1")
    assert "--worker web-1," in refusal.value.hint


@given(name=st.text(max_size=20) | st.from_regex(text.PLAIN, fullmatch=True))
def test_a_reference_is_always_one_plain_word(name: str) -> None:
    worker_id = UUID(int=0x8F)
    reference = text.reference(name, worker_id)
    assert text.is_plain(reference)
    assert reference in (name, str(worker_id))
    assert text.is_plain(names.with_plain_hostname(worker_id, host(name)).hostname)
