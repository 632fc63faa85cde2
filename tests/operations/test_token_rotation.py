"""A real agent takes new tokens from a real server, and keeps an identity that works whatever happens to it
meanwhile."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from skyctl.domain.cluster import Invitation
from skyctl.operations.admin import tokens as token_operations
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from tests.agent.process import Agent, agent_command, agent_environ
from tests.conftest import Process
from tests.support.helpers import TESTS, eventually, metrics
from tests.support.mortal_agent import MOMENTS

Serve = Callable[..., tuple[str, Process]]
Launch = Callable[..., Agent]


@pytest.fixture
def url(serve: Serve) -> str:
    return serve(WORKER_HEARTBEAT_INTERVAL="0.2")[0]


@pytest.fixture
def launch() -> Iterator[Launch]:
    agents: list[Agent] = []

    def launch(*command: str) -> Agent:
        agents.append(Agent(command, agent_environ()))
        return agents[-1]

    yield launch
    for agent in agents:
        agent.clean_up()


def configure(folder: Path, url: str, invitation: Invitation) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps({"apiUrl": url, "authToken": invitation.token, "dockerSocket": "/nowhere"}))
    path.chmod(0o600)
    return str(path)


def beats(connection: psycopg.Connection, worker_id: UUID) -> None:
    """See it beat twice from now on."""
    for _ in range(2):
        before = heard(connection, worker_id)
        eventually(lambda before=before: heard(connection, worker_id) != before)  # type: ignore[misc]


def heard(connection: psycopg.Connection, worker_id: UUID) -> object:
    row = connection.execute("SELECT last_heartbeat_at FROM container_workers WHERE id = %s", (worker_id,)).fetchone()
    return row[0] if row else None


def rotated(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT FROM worker_events WHERE kind = 'token_rotated'").rowcount


def test_a_rotation_loses_no_heartbeat(
    url: str, context: Context, connection: psycopg.Connection, launch: Launch, tmp_path: Path
) -> None:
    one = invitations.invite(context, TESTS)
    config = configure(tmp_path, url, one)
    agent = launch(*agent_command("--config", config))
    beats(connection, one.worker_id)
    for number in range(1, 4):
        token_operations.rotate(context, one.worker_id, TESTS)
        eventually(lambda number=number: rotated(connection) == number)  # type: ignore[misc]
        beats(connection, one.worker_id)
    assert 'outcome="refused"} 0.0' in metrics(url)
    kept = tmp_path / "token.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    document = json.loads(kept.read_text())
    assert document["workerId"] == str(one.worker_id)
    assert not any(document["token"] in line or one.token in line for line in agent.lines.all())
    agent.ends_on(signal.SIGTERM)
    launch(*agent_command("--config", config))
    beats(connection, one.worker_id)
    assert 'outcome="refused"} 0.0' in metrics(url)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_agent_that_is_killed_while_it_takes_a_token_works_afterwards(
    url: str, context: Context, connection: psycopg.Connection, launch: Launch, tmp_path: Path, moment: str
) -> None:
    one = invitations.invite(context, TESTS)
    config = configure(tmp_path, url, one)
    mortal = launch(sys.executable, "-m", "tests.support.mortal_agent", moment, "--config", config)
    beats(connection, one.worker_id)
    token_operations.rotate(context, one.worker_id, TESTS)
    assert mortal.exit_code() == -signal.SIGKILL
    launch(*agent_command("--config", config))
    eventually(lambda: rotated(connection) == 1)
    beats(connection, one.worker_id)
    assert 'outcome="refused"} 0.0' in metrics(url)


def test_an_agent_goes_on_after_its_manager_returned_to_a_backup_of_before_a_rotation(
    url: str, context: Context, connection: psycopg.Connection, launch: Launch, tmp_path: Path
) -> None:
    one = invitations.invite(context, TESTS)
    launch(*agent_command("--config", configure(tmp_path, url, one)))
    beats(connection, one.worker_id)
    token_operations.rotate(context, one.worker_id, TESTS)
    eventually(lambda: rotated(connection) == 1)
    beats(connection, one.worker_id)
    before = tokens.fingerprint(one.token)
    connection.execute("UPDATE container_workers SET auth_token_hash = %s, auth_token_issued_at = NULL", (before,))
    beats(connection, one.worker_id)
    token_operations.rotate(context, one.worker_id, TESTS)
    eventually(lambda: rotated(connection) == 2)
    beats(connection, one.worker_id)


def test_a_host_that_is_invited_anew_leaves_the_token_that_it_kept(
    url: str, context: Context, connection: psycopg.Connection, launch: Launch, tmp_path: Path
) -> None:
    one = invitations.invite(context, TESTS, "w1")
    agent = launch(*agent_command("--config", configure(tmp_path, url, one)))
    beats(connection, one.worker_id)
    token_operations.rotate(context, one.worker_id, TESTS)
    eventually(lambda: rotated(connection) == 1)
    token_operations.revoke(context, one.worker_id, TESTS, "lost")
    [line] = agent.says("action=refused")
    assert "TOKEN_REVOKED" in line
    assert "lost" in line
    agent.ends_on(signal.SIGTERM)
    config = configure(tmp_path, url, invitations.invite_again(context, TESTS, one.worker_id))
    launch(*agent_command("--config", config))
    beats(connection, one.worker_id)
