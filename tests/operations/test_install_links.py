"""Links by which a host fetches its install script: good once, for a while, and never more than a hash is stored."""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from skyctl.domain.cluster import Actor
from skyctl.domain.errors import LinkGone
from skyctl.domain.event_details import Fetched
from skyctl.domain.event_filter import EventFilter
from skyctl.installer import agent_archive
from skyctl.operations.admin import tokens, workers
from skyctl.operations.agents import install_links, invitations
from skyctl.operations.agents.registration import register
from skyctl.operations.shared.context import Context
from skyctl.store import events
from tests.conftest import SECRET, Cli, Process
from tests.support.helpers import PATIENCE_SECONDS, TESTS, admin_token, bearer, get, registration

pytestmark = pytest.mark.in_process

Serve = Callable[..., tuple[str, Process]]
HOST = Actor("", ip_address="10.0.0.7")


def secret_of(link: str) -> str:
    return link.rpartition("/")[2]


def token_in(script: str) -> str:
    found = re.search(r"^config='(.*)'$", script, re.M)
    assert found
    token = json.loads(found[1])["authToken"]
    assert isinstance(token, str)
    return token


def ahead(connection: psycopg.Connection, table: str) -> None:
    """Let what is to expire have expired."""
    column = {"install_links": "expires_at", "container_workers": "auth_token_expires_at"}[table]
    connection.execute(f"UPDATE {table} SET {column} = now() - interval '1 second'")


def test_a_link_gives_a_script_whose_token_registers(context: Context) -> None:
    worker_id, link = install_links.invite(context, TESTS, "web-1")
    assert link.startswith("https://manager.example.com/install/")
    script = install_links.redeem(context, HOST, secret_of(link))
    worker = register(context, token_in(script), registration()).worker
    assert (worker.id, worker.name) == (worker_id, "web-1")


def test_only_hashes_are_stored(context: Context, connection: psycopg.Connection) -> None:
    _, link = install_links.invite(context, TESTS)
    script = install_links.redeem(context, HOST, secret_of(link))
    rows = connection.execute(
        "SELECT l::text || w::text || e::text || a::text "
        "FROM install_links l, container_workers w, worker_events e, activity_logs a"
    ).fetchall()
    stored = "".join(row[0] for row in rows)
    assert hashlib.sha256(secret_of(link).encode()).hexdigest() in stored
    assert secret_of(link) not in stored
    assert token_in(script) not in stored


def test_a_link_is_good_once(context: Context) -> None:
    _, link = install_links.invite(context, TESTS)
    install_links.redeem(context, HOST, secret_of(link))
    with pytest.raises(LinkGone, match="this link has been used") as caught:
        install_links.redeem(context, HOST, secret_of(link))
    assert caught.value.script_code == install_links.USED


def test_a_link_expires(context: Context, connection: psycopg.Connection) -> None:
    _, link = install_links.invite(context, TESTS, ttl=timedelta(hours=1))
    ahead(connection, "install_links")
    with pytest.raises(LinkGone, match="this link has expired") as caught:
        install_links.redeem(context, HOST, secret_of(link))
    assert caught.value.script_code == install_links.EXPIRED


def test_a_link_of_nobody_or_of_a_removed_worker_is_none(context: Context) -> None:
    worker_id, link = install_links.invite(context, TESTS)
    workers.remove(context, worker_id, TESTS)
    for secret in (secret_of(link), "guessed", ""):
        with pytest.raises(LinkGone, match="there is no such link") as caught:
            install_links.redeem(context, HOST, secret)
        assert caught.value.script_code == install_links.UNKNOWN


@pytest.mark.parametrize("has_joined", [False, True])
def test_a_revoked_workers_links_are_gone_and_only_a_new_one_lets_it_in(
    context: Context, serve: Serve, has_joined: bool
) -> None:
    invitation, _ = invitations.generate_script(context, TESTS, "web-1")
    if has_joined:
        register(context, invitation.token, registration())
    before = install_links.make(context, TESTS, invitation.worker_id, insecure=False, replaces_host=has_joined)
    tokens.revoke(context, invitation.worker_id, TESTS)
    plain = install_links.make(context, TESTS, invitation.worker_id, insecure=False)
    url, _ = serve()
    for link in (before, plain):
        refused = get(f"{url}/install/{secret_of(link)}")
        assert refused.status_code == 410
        assert "authToken" not in refused.text
    assert state(context, invitation.worker_id, invitation.token) == "unknown"

    _, link = install_links.invite(context, TESTS, existing_id=invitation.worker_id)
    token = token_in(get(f"{url}/install/{secret_of(link)}").text)
    assert state(context, invitation.worker_id, token) == "good"
    assert register(context, token, registration()).worker.token_revoked_at is None
    assert get(f"{url}/install/{secret_of(before)}").status_code == 410, "it stays gone"


def test_a_token_that_somebody_stored_for_a_revoked_worker_is_no_invitation(
    context: Context, connection: psycopg.Connection
) -> None:
    invitation, _ = invitations.generate_script(context, TESTS)
    tokens.revoke(context, invitation.worker_id, TESTS)
    known = hashlib.sha256(invitation.token.encode()).hexdigest()
    connection.execute("UPDATE container_workers SET auth_token_hash = %s", (known,))
    assert state(context, invitation.worker_id, invitation.token) == "unknown"


def test_a_link_beside_a_script_that_was_used_is_used_too(context: Context) -> None:
    invitation, _ = invitations.generate_script(context, TESTS)
    link = install_links.make(context, TESTS, invitation.worker_id, insecure=False)
    register(context, invitation.token, registration())
    with pytest.raises(LinkGone, match="this link has been used"):
        install_links.redeem(context, HOST, secret_of(link))


def test_a_link_beside_a_token_that_beats_is_used(context: Context, connection: psycopg.Connection) -> None:
    invitation, _ = invitations.generate_script(context, TESTS)
    link = install_links.make(context, TESTS, invitation.worker_id, insecure=False)
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    assert state(context, invitation.worker_id, invitation.token) == "used"
    with pytest.raises(LinkGone, match="this link has been used"):
        install_links.redeem(context, HOST, secret_of(link))


def test_the_host_of_a_worker_that_is_there_is_invited_anew_by_a_link(context: Context) -> None:
    invitation, _ = invitations.generate_script(context, TESTS, "web-1")
    register(context, invitation.token, registration())
    worker_id, link = install_links.invite(context, TESTS, existing_id=invitation.worker_id)
    token = token_in(install_links.redeem(context, HOST, secret_of(link)))
    assert state(context, worker_id, token) == "good"
    assert register(context, token, registration("reinstalled")).worker.id == invitation.worker_id
    assert state(context, worker_id, invitation.token) == "unknown"


def test_a_link_that_a_failed_run_has_used_up_is_followed_by_another(context: Context) -> None:
    worker_id, link = install_links.invite(context, TESTS, "web-1")
    script = install_links.redeem(context, HOST, secret_of(link))
    next_link = f"skyctl workers install-script --worker {worker_id} --link"
    assert f"next_link='{next_link}'" in script
    _, another = install_links.invite(context, TESTS, existing_id=worker_id)
    token = token_in(install_links.redeem(context, HOST, secret_of(another)))
    assert state(context, worker_id, token) == "good"
    assert register(context, token, registration()).worker.name == "web-1"


def test_links_are_events(context: Context) -> None:
    worker_id, link = install_links.invite(context, TESTS)
    install_links.redeem(context, HOST, secret_of(link))
    with context.db.transaction() as tx:
        told = events.latest(tx, 10, EventFilter([worker_id]))
    assert [event.kind for event in told] == ["invited", "link_made", "link_used"]
    assert told[-1].details == Fetched(ipAddress="10.0.0.7")


def state(context: Context, worker_id: UUID, token: str) -> str:
    return install_links.check(context, worker_id, hashlib.sha256(token.encode()).hexdigest())[1]


def test_what_a_script_asks_is_answered_from_what_became_of_its_invitation(
    context: Context, connection: psycopg.Connection
) -> None:
    invitation, _ = invitations.generate_script(context, TESTS)
    worker_id, token = invitation.worker_id, invitation.token
    assert state(context, worker_id, token) == "good"
    assert state(context, worker_id, "another") == "unknown"
    assert state(context, uuid4(), token) == "unknown"
    ahead(connection, "container_workers")
    assert state(context, worker_id, token) == "expired"
    connection.execute("UPDATE container_workers SET auth_token_expires_at = NULL")
    register(context, token, registration())
    assert state(context, worker_id, token) == "used"
    workers.remove(context, worker_id, TESTS)
    assert state(context, worker_id, token) == "removed"


# Over HTTP


def piped_into_a_shell(answer: httpx.Response) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh"], input=answer.text, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def test_the_second_fetch_is_a_script_that_only_says_so(serve: Serve, context: Context) -> None:
    url, _ = serve()
    _, link = install_links.invite(context, TESTS, "web-1")
    path = link.removeprefix("https://manager.example.com")
    first = get(url + path)
    assert (first.status_code, first.headers["content-type"]) == (200, "text/x-shellscript; charset=utf-8")
    assert first.text.startswith("#!/bin/sh\n# Makes this host a worker")
    second = get(url + path)
    assert (second.status_code, second.headers["content-type"]) == (410, "text/x-shellscript; charset=utf-8")
    done = piped_into_a_shell(second)
    assert (done.returncode, done.stdout) == (25, "")
    assert done.stderr == (
        "error W25: this link has been used\n"
        "hint: each is good once; make another one: skyctl workers install-script --worker web-1 --link\n"
    )


def test_an_expired_link_is_a_script_that_says_so(
    serve: Serve, context: Context, connection: psycopg.Connection
) -> None:
    url, _ = serve()
    _, link = install_links.invite(context, TESTS)
    ahead(connection, "install_links")
    answer = get(url + link.removeprefix("https://manager.example.com"))
    assert answer.status_code == 410
    assert piped_into_a_shell(answer).returncode == install_links.EXPIRED


def test_the_question_of_a_script_is_answered_in_lines(serve: Serve, context: Context) -> None:
    url, _ = serve()
    invitation, _ = invitations.generate_script(context, TESTS)
    fingerprint = hashlib.sha256(invitation.token.encode()).hexdigest()
    answer = get(f"{url}/install/check/{invitation.worker_id}/{fingerprint}")
    assert answer.status_code == 200
    assert re.fullmatch(r"time \d{10}\ninvitation good\n", answer.text)
    assert get(f"{url}/install/check/nobody/{fingerprint}").status_code == 404


def test_the_agent_comes_with_its_checksum(serve: Serve) -> None:
    url, _ = serve()
    agent, checksum = get(f"{url}/install/skyagent.tar.gz"), get(f"{url}/install/skyagent.tar.gz.sha256")
    assert agent.content == agent_archive()
    assert checksum.text == f"{hashlib.sha256(agent.content).hexdigest()}  skyagent.tar.gz\n"
    with tarfile.open(fileobj=io.BytesIO(agent.content)) as tar:
        assert "skyagent/__main__.py" in tar.getnames()


def test_generate_script_answers_a_link_too(serve: Serve, connection: psycopg.Connection) -> None:
    url, _ = serve(SKYCTL_API_URL="https://manager.example.com")
    token = admin_token(SECRET, connection)
    data = httpx.post(f"{url}/api/workers/generate-script", headers=bearer(token), timeout=PATIENCE_SECONDS).json()[
        "data"
    ]
    fetched = get(url + data["link"].removeprefix("https://manager.example.com"))
    assert fetched.status_code == 200
    assert data["workerId"] in fetched.text
    assert token_in(fetched.text) != data["token"]


def test_the_command_prints_the_line_for_the_host(cli: Cli) -> None:
    done = cli("workers", "install-script", "--link", "--name", "web-1", SKYCTL_API_URL="https://manager.example.com")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"curl -sS https://manager\.example\.com/install/[\w-]{43} \| sh\n", done.stdout)
    listed = json.loads(cli("workers", "list", "-o", "json").stdout)
    assert [(worker["name"], worker["status"]) for worker in listed["workers"]] == [("web-1", "pending")]


def run(command: str) -> "subprocess.CompletedProcess[str]":
    """What root's shell does with a line that was pasted into it."""
    return subprocess.run(["sh"], input=command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def test_the_line_says_why_there_is_no_script_and_fails(cli: Cli, serve: Serve) -> None:
    url, _ = serve()
    command = cli("workers", "install-script", "--link", "--name", "web-1", SKYCTL_API_URL=url).stdout
    assert get(command.split()[2]).status_code == 200
    done = run(command)
    assert (done.returncode, done.stdout) == (25, "")
    assert done.stderr.startswith("error W25: this link has been used\nhint: ")
    again = done.stderr.partition("make another one: skyctl ")[2].split()
    assert cli(*again, SKYCTL_API_URL=url).stdout.startswith("curl -sS ")


def test_a_name_that_is_taken_tells_how_to_invite_its_host_once_more(cli: Cli) -> None:
    url = {"SKYCTL_API_URL": "https://manager.example.com"}
    assert cli("workers", "install-script", "--name", "web-1", **url).returncode == 0
    refused = cli("workers", "install-script", "--link", "--name", "web-1", **url)
    assert refused.returncode == 4
    assert "skyctl workers install-script --worker web-1, with --link for a link" in refused.stderr


def test_the_line_says_that_the_manager_cannot_answer_now_and_is_good_later(
    cli: Cli, serve: Serve, connection: psycopg.Connection
) -> None:
    connection.execute("DELETE FROM swarm_joins")  # no monitor has looked yet
    url, _ = serve()
    command = cli("workers", "install-script", "--link", SKYCTL_API_URL=url).stdout
    for _ in range(2):
        done = run(command)
        assert (done.returncode, done.stdout) == (21, "")
        assert done.stderr.startswith("error W21: no monitor has told yet how hosts join the swarm")
        assert "\nhint: " in done.stderr
    assert cli("monitor", "--once").returncode == 0
    assert get(command.split()[2]).status_code == 200


def test_the_command_takes_our_own_authority_along(cli: Cli, serve: Serve) -> None:
    assert cli("tls", "init").returncode == 0
    url, _ = serve()
    command = cli("workers", "install-script", "--link", SKYCTL_API_URL=url).stdout
    assert "-----BEGIN CERTIFICATE-----" in command
    fetched = run(command.replace("| sh\n", "| cat\n"))
    assert fetched.stdout.startswith("#!/bin/sh\n# Makes this host a worker"), fetched.stderr
    assert "ca_certificate='-----BEGIN CERTIFICATE-----" in fetched.stdout
    stranger = command.replace("BEGIN CERTIFICATE-----\nMII", "BEGIN CERTIFICATE-----\nMIJ")
    assert run(stranger).stdout == ""
