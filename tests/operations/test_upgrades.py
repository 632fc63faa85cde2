"""Offering workers a newer agent: who is offered it, how it reaches them, and what the manager learns."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from skyctl.host.release_key import ReleaseKey
from skyctl.installer import agent_archive
from skyctl.operations.admin import events, workers
from skyctl.operations.agents import invitations, release_keys, upgrades
from skyctl.operations.agents.registration import register
from skyctl.operations.shared.context import Context
from tests.agent.unit import Unit, newer
from tests.conftest import Cli, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, add_worker, bearer, eventually, registration

pytestmark = pytest.mark.in_process

Serve = Callable[..., tuple[str, Process]]
OURS = hashlib.sha256(agent_archive()).hexdigest()
OLDER = "0" * 64


def worker(connection: psycopg.Connection, name: str, key: ReleaseKey, **metadata: object) -> UUID:
    """A worker whose host has pinned this key."""
    said = {"agentSha256": OLDER, "releaseKey": key.public(), **metadata}
    return add_worker(connection, name=name, metadata=json.dumps(said))


def joined(context: Context) -> tuple[UUID, str]:
    """A worker that runs an older agent, and its token."""
    invited = invitations.invite(context, TESTS, "w")
    tell(context, invited.token, agentSha256=OLDER, releaseKey=release_keys.to_pin(context))
    return invited.worker_id, invited.token


def tell(context: Context, token: str, **metadata: Any) -> None:
    register(context, token, registration(**metadata))


def kinds(context: Context) -> list[str]:
    return [event.kind for event in events.since(context, 0)]


def order(context: Context, worker_id: UUID) -> dict[str, Any]:
    """What is offered to a worker."""
    offer = upgrades.offer(workers.get(context, worker_id))
    assert offer
    return dict(offer)


@pytest.mark.parametrize("arguments", [(), ("w1", "--all")])
def test_it_wants_to_be_told_which_workers(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli("workers", "upgrade", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give either WORKER or --all" in done.stderr


def test_a_worker_that_is_not_there_is_an_error_before_any_is_offered_it(
    cli: Cli, connection: psycopg.Connection, context: Context, release_key: ReleaseKey
) -> None:
    worker(connection, "w1", release_key)
    assert cli("workers", "upgrade", "w1", "w2").returncode == 3
    assert kinds(context) == []


def test_each_worker_gets_what_it_can_use(
    cli: Cli, connection: psycopg.Connection, context: Context, release_key: ReleaseKey
) -> None:
    given_up = {"sha256": OURS, "offeredAt": "x", "reason": "it ended 3 times"}
    worker(connection, "old", release_key)
    worker(connection, "new", release_key, agentSha256=OURS)
    add_worker(connection, name="panel")
    worker(connection, "sick", release_key, agentUpgradeFailed=given_up)
    shown = cli("workers", "upgrade", "--all", "--dry-run")
    assert shown.returncode == 7
    assert sorted(shown.stdout.splitlines()) == [
        "new: up to date",
        f"old: would be offered agent {upgrades.release().version} ({OURS[:12]})",
        "panel: its agent cannot replace itself: run a new install script on the host",
        "sick: it gave it up (it ended 3 times): name it to have it tried again",
    ]
    assert kinds(context) == []
    done = cli("workers", "upgrade", "--all", "-o", "json")
    assert done.returncode == 7
    outcomes = {each["name"]: each["outcome"] for each in json.loads(done.stdout)["workers"]}
    assert outcomes == {"new": "up-to-date", "old": "offered", "panel": "impossible", "sick": "impossible"}
    assert kinds(context) == ["agent_upgrade_offered"]
    assert cli("workers", "upgrade", "sick").stdout.startswith("sick: offered agent ")
    assert cli("workers", "upgrade", "panel").returncode == 4


def test_many_are_offered_it_by_so_many_at_once(context: Context, connection: psycopg.Connection) -> None:
    said = {"agentSha256": OLDER, "releaseKey": release_keys.to_pin(context)}
    connection.execute(
        "INSERT INTO container_workers (id, name, hostname, ip_address, auth_token_hash, metadata) "
        "SELECT gen_random_uuid(), 'w' || n, 'h', '10.0.0.1', 'x' || n, %s FROM generate_series(1, %s) AS n",
        (json.dumps(said), upgrades.MOST_AT_ONCE + 1),
    )
    upgrades.upgrade(context, TESTS, None)
    offered = connection.execute("SELECT FROM container_workers WHERE agent_offered = %s", (OURS,)).rowcount
    assert offered == upgrades.MOST_AT_ONCE + 1
    for table, column in (("worker_events", "kind"), ("activity_logs", "event_type")):
        told = connection.execute(
            f"SELECT count(*), count(DISTINCT xmin::text) FROM {table} WHERE {column} LIKE '%upgrade_offered'"
        )
        assert told.fetchone() == (offered, 2), "so many at once, each told once"


def test_heartbeats_do_not_wait_for_what_is_told_of_an_offer(
    context: Context, serve: Serve, connection: psycopg.Connection
) -> None:
    worker_id, token = joined(context)
    url, _ = serve()
    with ThreadPoolExecutor() as pool:
        with connection.transaction():
            connection.execute("LOCK TABLE activity_logs IN EXCLUSIVE MODE")
            waiting = pool.submit(upgrades.upgrade, context, TESTS, None)
            blocked = "SELECT FROM pg_locks WHERE relation = 'activity_logs'::regclass AND NOT granted"
            eventually(lambda: connection.execute(blocked).rowcount)
            beat = f"{url}/api/workers/{worker_id}/heartbeat"
            assert httpx.post(beat, json=LOAD, headers=bearer(token), timeout=PATIENCE_SECONDS).status_code == 200
            assert not waiting.done()
        waiting.result()
    assert workers.get(context, worker_id).agent_offered == OURS


def test_the_answer_to_a_heartbeat_offers_it_only_where_that_was_asked_for(
    context: Context, serve: Serve, cli: Cli
) -> None:
    worker_id, token = joined(context)
    url, _ = serve()
    beat = f"{url}/api/workers/{worker_id}/heartbeat"
    assert "agent" not in httpx.post(beat, json=LOAD, headers=bearer(token), timeout=PATIENCE_SECONDS).json()
    assert cli("workers", "upgrade", "w").returncode == 0
    offered = httpx.post(beat, json=LOAD, headers=bearer(token), timeout=PATIENCE_SECONDS).json()["agent"]
    assert offered == order(context, worker_id)
    assert (offered["sha256"], offered["size"]) == (OURS, len(agent_archive()))
    fetched = httpx.get(f"{url}/api/agent/{OURS}", headers=bearer(token), timeout=PATIENCE_SECONDS)
    assert (fetched.status_code, fetched.content) == (200, agent_archive())
    tell(context, token, agentSha256=OURS)
    assert "agent" not in httpx.post(beat, json=LOAD, headers=bearer(token), timeout=PATIENCE_SECONDS).json()


def test_nobody_but_a_worker_gets_it_and_only_what_is_there(context: Context, serve: Serve) -> None:
    _, token = joined(context)
    url, _ = serve()
    assert httpx.get(f"{url}/api/agent/{OURS}", timeout=PATIENCE_SECONDS).status_code == 401
    assert httpx.get(f"{url}/api/agent/{OURS}", headers=bearer("other"), timeout=PATIENCE_SECONDS).status_code == 401
    unknown = httpx.get(f"{url}/api/agent/{OLDER}", headers=bearer(token), timeout=PATIENCE_SECONDS)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "AGENT_NOT_FOUND")


def test_db_init_withdraws_offers_of_another_version(
    context: Context, connection: psycopg.Connection, cli: Cli, release_key: ReleaseKey
) -> None:
    ours, other = worker(connection, "ours", release_key), worker(connection, "other", release_key)
    upgrades.upgrade(context, TESTS, [ours, other])
    connection.execute("UPDATE container_workers SET agent_offered = %s WHERE id = %s", (OLDER, other))
    assert cli("db", "init").returncode == 0
    assert workers.get(context, ours).agent_offered == OURS
    assert workers.get(context, other).agent_offered is None


def test_an_upgrade_that_was_taken_over_is_told_once(context: Context, cli: Cli) -> None:
    worker_id, token = joined(context)
    upgrades.upgrade(context, TESTS, [worker_id])
    assert f"{OURS[:12]} offered" in cli("workers", "show", "w").stdout
    tell(context, token, agentSha256=OLDER)
    assert "agent_upgraded" not in kinds(context)
    for _ in range(2):
        tell(context, token, agentSha256=OURS, agentVersion="9.9.9")
    assert [event.reason for event in events.since(context, 0) if event.kind == "agent_upgraded"] == [
        f"9.9.9 ({OURS[:12]})"
    ]
    assert workers.get(context, worker_id).agent_offered is None
    assert "offered" not in cli("workers", "show", "w").stdout


def test_one_that_was_given_up_is_told_with_the_reason(context: Context, cli: Cli) -> None:
    worker_id, token = joined(context)
    upgrades.upgrade(context, TESTS, [worker_id])
    failed = {"sha256": OURS, "offeredAt": order(context, worker_id)["offeredAt"], "reason": "it ended 3 times\x1b[2J"}
    tell(context, token, agentSha256=OLDER, agentUpgradeFailed={**failed, "offeredAt": "an earlier order"})
    assert "agent_upgrade_failed" not in kinds(context)
    tell(context, token, agentSha256=OLDER, agentUpgradeFailed=failed)
    event = events.since(context, 0)[-1]
    assert (event.kind, event.reason[:16]) == ("agent_upgrade_failed", "it ended 3 times")
    assert workers.get(context, worker_id).agent_offered is None
    for command in ("show", "why"):
        shown = cli("workers", command, "w").stdout
        assert f"{OURS[:12]} given up: it ended 3 times" in shown
        assert "\x1b" not in shown


@pytest.mark.parametrize("nonsense", [1, "x", [], {"sha256": OURS}, {"sha256": [], "offeredAt": {}, "reason": None}])
def test_what_a_worker_says_in_error_breaks_nothing(context: Context, cli: Cli, nonsense: object) -> None:
    worker_id, token = joined(context)
    upgrades.upgrade(context, TESTS, [worker_id])
    tell(context, token, agentSha256=OLDER, agentUpgradeFailed=nonsense)
    assert cli("workers", "show", "w").returncode == 0
    assert cli("workers", "why", "w").returncode == 0
    assert cli("workers", "upgrade", "--all").returncode in (0, 4)


def test_a_real_agent_takes_a_new_token_and_a_newer_agent_from_one_answer(
    context: Context, cli: Cli, start: Callable[..., Process], tmp_path: Path, release_key: ReleaseKey
) -> None:
    serving = start("serve", "--port", "0", WORKER_HEARTBEAT_INTERVAL="1")
    url = serving.until("listening on ").split("listening on ")[1].strip()
    invited = invitations.invite(context, TESTS, "w")
    config = tmp_path / "config.json"
    config.touch(0o600)
    config.write_text(json.dumps({"apiUrl": url, "authToken": invited.token, "dockerSocket": "/nowhere"}))
    unit = Unit(tmp_path, config, release_key)
    unit.install(newer(__init__='__version__ = "0.1.9"\n'))
    try:
        unit.start()
        eventually(lambda: workers.get(context, invited.worker_id).metadata.get("agentVersion") == "0.1.9")
        assert cli("workers", "rotate-token", "w").returncode == 0
        assert cli("workers", "upgrade", "w").returncode == 0
        eventually(lambda: {"agent_upgraded", "token_rotated"} <= set(kinds(context)))
    finally:
        unit.end()
    assert workers.get(context, invited.worker_id).metadata["agentSha256"] == OURS
    assert not [line for line in unit.lines() if "action=refused" in line or "upgrade_failed" in line]
