"""What a host may be trusted with: invitations, tokens and the machine that they belong to, seen over real sockets."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from skyctl.documents import http
from skyctl.domain.cluster import Heartbeat, Invitation, Load
from skyctl.domain.errors import Refused, SkyctlError, Unauthorized
from skyctl.domain.tokens import REPLY_PENDING
from skyctl.host.keyring import Keyring
from skyctl.operations.admin import tokens as token_operations
from skyctl.operations.agents import heartbeats, invitations, registration, reply
from skyctl.operations.monitor import token_rotation
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from skyctl.rules import identity, tokens
from tests.conftest import Cli, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, REGISTRATION, TESTS, add_worker, bearer, look

pytestmark = pytest.mark.in_process

Serve = Callable[..., tuple[str, Process]]
MACHINE = "m" * 64


@pytest.fixture
def api(serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve()[0], timeout=PATIENCE_SECONDS) as client:
        yield client


def beat(api: httpx.Client, worker_id: object, token: str, query: str = "") -> httpx.Response:
    return api.post(f"/api/workers/{worker_id}/heartbeat{query}", headers=bearer(token), json=LOAD)


def join(
    api: httpx.Client, token: str, *, hostname: str = "host-1", address: str = "10.0.0.1", **said: object
) -> httpx.Response:
    body = registration_of(hostname=hostname, address=address, **said)
    return api.post("/api/workers/register", headers=bearer(token), json=body)


def registration_of(*, hostname: str, address: str, **said: object) -> dict[str, Any]:
    metadata = {"machineId": MACHINE, "bootId": "boot-1", "instanceId": "process-1", "takesTokens": True} | said
    return REGISTRATION | {"hostname": hostname, "ipAddress": address, "metadata": metadata}


def joined(api: httpx.Client, context: Context) -> Invitation:
    one = invitations.invite(context, TESTS, "w1")
    assert join(api, one.token).status_code == 201
    return one


def kinds(connection: psycopg.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT kind FROM worker_events ORDER BY seq")]


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def silent_for(connection: psycopg.Connection, seconds: float) -> None:
    connection.execute(
        "UPDATE container_workers "
        "SET (bound_at, last_heartbeat_at) = (SELECT at, at FROM (SELECT now() - %s AS at) AS s)",
        (timedelta(seconds=seconds),),
    )


@pytest.mark.parametrize("query", ["", "?past=the-fast-path"])
def test_a_new_token_travels_in_the_answer_until_it_is_used(
    api: httpx.Client, context: Context, connection: psycopg.Connection, query: str
) -> None:
    one = joined(api, context)
    assert "newToken" not in beat(api, one.worker_id, one.token, query).json()
    token_operations.rotate(context, one.worker_id, TESTS)
    handed = beat(api, one.worker_id, one.token, query)
    assert handed.status_code == 200
    new = handed.json()["newToken"]
    assert new != one.token
    assert beat(api, one.worker_id, one.token, query).json()["newToken"] == new, "the first answer may have been lost"
    assert new not in str(connection.execute("SELECT * FROM container_workers").fetchall()), "only hashes are stored"

    used = beat(api, one.worker_id, new, query)
    assert (used.status_code, "newToken" in used.json()) == (200, False)
    refused = beat(api, one.worker_id, one.token, query)
    assert error(refused) == (401, "UNAUTHORIZED")
    assert "install-script --worker" in refused.json()["error"]["message"]
    assert "newToken" not in beat(api, one.worker_id, new, query).json()
    assert kinds(connection) == ["invited", "registered", "token_rotation_asked", "token_rotated"]


def test_a_token_that_cannot_be_signed_again_is_replaced_by_one_that_is_good(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    one = joined(api, context)
    token_operations.rotate(context, one.worker_id, TESTS)
    connection.execute("UPDATE container_workers SET next_token_issued_at = next_token_issued_at - interval '1 s'")
    new = beat(api, one.worker_id, one.token).json()["newToken"]
    assert beat(api, one.worker_id, new).status_code == 200


def test_a_batch_may_hold_the_former_and_the_new_token(api: httpx.Client, context: Context) -> None:
    one = joined(api, context)
    token_operations.rotate(context, one.worker_id, TESTS)
    new = beat(api, one.worker_id, one.token).json()["newToken"]
    batch = [
        Heartbeat(str(one.worker_id), tokens.fingerprint(token), Load(1.0, 2.0, 3.0, 4))
        for token in (one.token, new, "other")
    ]
    former, latter, other = asyncio.run(heartbeats.record(context, batch))
    assert (former, latter) == (REPLY_PENDING, REPLY_PENDING)
    assert isinstance(other, Unauthorized)


def test_a_registration_is_a_first_use_too(api: httpx.Client, context: Context, connection: psycopg.Connection) -> None:
    one = joined(api, context)
    token_operations.rotate(context, one.worker_id, TESTS)
    new = beat(api, one.worker_id, one.token).json()["newToken"]
    assert join(api, one.token).status_code == 201, "an agent that was killed before it kept the new one"
    assert join(api, new).status_code == 201
    assert error(join(api, one.token)) == (401, "UNAUTHORIZED")
    assert kinds(connection)[-1] == "token_rotated"


def test_an_agent_that_cannot_take_a_token_keeps_its_own(
    api: httpx.Client, context: Context, connection: psycopg.Connection, cli: Cli
) -> None:
    one = invitations.invite(context, TESTS, "w1")
    assert join(api, one.token, takesTokens=None).status_code == 201
    refused = cli("workers", "rotate-token", "w1")
    assert refused.returncode == 4
    assert "cannot take a new token" in refused.stderr
    beat(api, one.worker_id, one.token)
    connection.execute("UPDATE container_workers SET created_at = now() - interval '99 d'")
    look(context)
    lease = leadership.lead(context, "tests", lambda _: True)
    assert lease
    assert token_rotation.rotate_due(lease) == []


def test_an_agent_that_can_take_a_token_no_more_is_not_handed_one(api: httpx.Client, context: Context) -> None:
    one = joined(api, context)
    body = REGISTRATION | {
        "hostname": "host-1",
        "ipAddress": "10.0.0.1",
        "metadata": {"machineId": MACHINE, "bootId": "boot-1"},
    }
    assert api.post("/api/workers/register", headers=bearer(one.token), json=body).status_code == 201
    with pytest.raises(Refused, match="cannot take a new token"):
        token_operations.rotate(context, one.worker_id, TESTS)


def test_the_monitor_has_old_tokens_replaced(
    api: httpx.Client, context: Context, connection: psycopg.Connection, cli: Cli
) -> None:
    one = joined(api, context)
    beat(api, one.worker_id, one.token)
    assert cli("monitor", "--once").returncode == 0
    assert "newToken" not in beat(api, one.worker_id, one.token).json(), "it is new"
    connection.execute("UPDATE container_workers SET created_at = now() - interval '31 d'")
    assert cli("monitor", "--once", SKYCTL_TOKEN_ROTATION_DAYS="0").returncode == 0
    assert "newToken" not in beat(api, one.worker_id, one.token).json(), "zero days: never"
    assert cli("monitor", "--once").returncode == 0
    new = beat(api, one.worker_id, one.token).json()["newToken"]
    assert beat(api, one.worker_id, new).status_code == 200
    assert cli("monitor", "--once").returncode == 0
    assert "newToken" not in beat(api, one.worker_id, new).json()
    assert [kind for kind in kinds(connection) if kind.startswith("token")] == ["token_rotation_due", "token_rotated"]


def test_so_many_at_once_and_only_those_that_beat(context: Context, connection: psycopg.Connection) -> None:
    old = datetime.now(UTC) - timedelta(days=31)
    takes = json.dumps({"takesTokens": True})
    for number in range(token_rotation.MOST_AT_ONCE + 5):
        add_worker(connection, f"t{number}", status="active", metadata=takes, created_at=old)
    away = add_worker(connection, "away", status="offline", metadata=takes, created_at=old)
    lease = leadership.lead(context, "tests", lambda _: True)
    assert lease
    assert [len(token_rotation.rotate_due(lease)) for _ in range(3)] == [token_rotation.MOST_AT_ONCE, 5, 0]
    row = connection.execute("SELECT next_token_hash FROM container_workers WHERE id = %s", (away,)).fetchone()
    assert row == (None,)


def test_the_tokens_of_many_are_looked_at_part_by_part_until_none_is_due(
    context: Context, connection: psycopg.Connection
) -> None:
    old, takes = datetime.now(UTC) - timedelta(days=31), json.dumps({"takesTokens": True, "filler": "x" * 1500})
    due = {add_worker(connection, status="active", metadata=takes, created_at=old) for _ in range(12)}
    lease = leadership.lead(context, "tests", lambda _: True)
    assert lease
    tokens_round, found = token_rotation.Round(part_blocks=1), list[list[UUID | None]]()
    while sum(map(len, found)) < len(due) and len(found) < 100:
        found.append([event.worker_id for event in token_rotation.rotate_due(lease, tokens_round)])
    assert {worker_id for part in found for worker_id in part} == due
    assert len([part for part in found if part]) > 2, "of more pages than one"


def test_a_revoked_worker_is_refused_at_its_next_heartbeat_and_can_be_invited_anew(
    api: httpx.Client, context: Context, connection: psycopg.Connection, cli: Cli
) -> None:
    one = joined(api, context)
    assert beat(api, one.worker_id, one.token).status_code == 200
    assert cli("workers", "revoke", "w1", "--yes", "--reason", "stolen laptop").returncode == 0
    for refused in (beat(api, one.worker_id, one.token), join(api, one.token)):
        assert error(refused) == (403, "TOKEN_REVOKED")
        assert "stolen laptop" in refused.json()["error"]["message"]
        assert "install-script --worker" in refused.json()["error"]["message"]
    assert "pending revoked" in cli("workers", "list").stdout
    assert "stolen laptop" in cli("workers", "show", "w1").stdout
    assert "stolen laptop" in cli("workers", "why", "w1").stdout
    shown = json.loads(cli("workers", "show", "w1", "-o", "json").stdout)
    assert (shown["status"], shown["tokenRevokedReason"]) == ("pending", "stolen laptop")
    assert cli("workers", "revoke", "w1", "--yes").returncode == 4
    assert cli("workers", "rotate-token", "w1").returncode == 4

    script = json.loads(cli("workers", "install-script", "--worker", "w1", "--insecure", "-o", "json").stdout)
    assert script["workerId"] == str(one.worker_id)
    assert error(beat(api, one.worker_id, script["token"])) == (401, "UNAUTHORIZED"), (
        "an invitation is to register with"
    )
    assert error(join(api, one.token)) == (403, "TOKEN_REVOKED")
    assert join(api, script["token"], machineId="n" * 64).status_code == 201, "another machine, or the same reinstalled"
    assert beat(api, one.worker_id, script["token"]).status_code == 200
    assert "revoked" not in cli("workers", "list").stdout
    assert "token_revoked w1: stolen laptop" in cli("events").stdout
    assert kinds(connection) == ["invited", "registered", "token_revoked", "invited_anew", "invitation_used"]


def test_a_worker_beats_on_until_its_new_invitation_is_used(api: httpx.Client, context: Context) -> None:
    one = joined(api, context)
    again = invitations.invite_again(context, TESTS, one.worker_id)
    assert beat(api, one.worker_id, one.token).status_code == 200
    assert join(api, again.token, machineId="n" * 64).status_code == 201
    assert beat(api, one.worker_id, one.token).status_code == 401
    assert join(api, again.token, machineId="n" * 64).status_code == 201, "it is an ordinary token now"


def test_an_invitation_expires_unless_it_is_used(
    api: httpx.Client, context: Context, connection: psycopg.Connection, cli: Cli
) -> None:
    made = json.loads(cli("workers", "install-script", "--ttl", "2h", "--insecure", "-o", "json").stdout)
    row = connection.execute("SELECT auth_token_expires_at - created_at FROM container_workers").fetchone()
    assert row == (timedelta(hours=2),)
    assert cli("workers", "install-script", "--ttl", "soon", "--insecure").returncode == 2
    assert cli("workers", "install-script", "--worker", "nobody", "--insecure").returncode == 3

    used = invitations.invite(context, TESTS, ttl=timedelta(hours=2))
    assert join(api, used.token).status_code == 201
    connection.execute(
        "UPDATE container_workers SET auth_token_expires_at = now() - interval '1 s' WHERE hostname = ''"
    )
    for refused in (join(api, made["token"]), beat(api, made["workerId"], made["token"])):
        assert error(refused) == (401, "INVITATION_EXPIRED")
        assert "install-script" in refused.json()["error"]["message"]
    assert beat(api, used.worker_id, used.token).status_code == 200
    row = connection.execute(
        "SELECT max(auth_token_expires_at) - now() > interval '9 years' FROM container_workers"
    ).fetchone()
    assert row == (True,), "from then on it is an ordinary token"

    again = invitations.invite_again(context, TESTS, used.worker_id)
    connection.execute("UPDATE container_workers SET invitation_expires_at = now() - interval '1 s'")
    assert error(join(api, again.token)) == (401, "INVITATION_EXPIRED")
    assert join(api, used.token).status_code == 201


def test_an_agent_that_never_registers_uses_its_invitation_by_its_first_heartbeat(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    heard, unheard = invitations.invite(context, TESTS), invitations.invite(context, TESTS)
    assert beat(api, heard.worker_id, heard.token).status_code == 200
    connection.execute("UPDATE container_workers SET auth_token_expires_at = now() - interval '1 s'")
    assert beat(api, heard.worker_id, heard.token).status_code == 200
    assert error(beat(api, unheard.worker_id, unheard.token)) == (401, "INVITATION_EXPIRED")
    assert join(api, heard.token).status_code == 201, "it may still register"
    connection.execute("UPDATE container_workers SET auth_token_expires_at = now() - interval '1 s'")
    assert error(beat(api, heard.worker_id, heard.token)) == (401, "UNAUTHORIZED"), "an ordinary token that ended"


def test_a_token_belongs_to_the_first_machine_that_uses_it(api: httpx.Client, context: Context) -> None:
    one = joined(api, context)
    other = join(api, one.token, hostname="host-2", address="10.0.0.2", machineId="n" * 64)
    assert error(other) == (409, "TOKEN_IN_USE")
    message = other.json()["error"]["message"]
    for word in ("host-1 (10.0.0.1)", "host-2 (10.0.0.2)", "skyctl workers install-script --worker w1"):
        assert word in message
    nameless = join(api, one.token, hostname="host-2", address="10.0.0.2", machineId=None)
    assert error(nameless) == (409, "TOKEN_IN_USE"), "naming no machine is no way around"
    assert beat(api, one.worker_id, one.token).status_code == 200
    assert join(api, one.token, hostname="renamed", address="10.0.0.9").status_code == 201, "names and addresses change"


def test_an_agent_that_is_started_again_or_moves_is_no_copy(api: httpx.Client, context: Context) -> None:
    one = joined(api, context)
    beat(api, one.worker_id, one.token)
    assert join(api, one.token, instanceId="process-2").status_code == 201, "started again"
    assert join(api, one.token, instanceId="process-2", address="10.0.0.8").status_code == 201, "another address"
    assert "newToken" not in beat(api, one.worker_id, one.token).json()


@pytest.mark.parametrize("boot", ["boot-2", "boot-1"], ids=["another machine", "a container on the same kernel"])
def test_a_copied_disk_is_noticed_and_refused_by_name(
    api: httpx.Client, context: Context, connection: psycopg.Connection, cli: Cli, boot: str
) -> None:
    cli("monitor", "--once")
    one = joined(api, context)
    beat(api, one.worker_id, one.token)
    copy = {"hostname": "host-2", "address": "10.0.0.2", "bootId": boot, "instanceId": "process-2"}
    waiting = join(api, one.token, **copy)
    assert error(waiting) == (409, "REBOOT_UNCONFIRMED")
    assert 1 <= int(waiting.headers["Retry-After"]) <= 60
    assert beat(api, one.worker_id, one.token).status_code == 200, "the true one beats on"
    for _ in range(2):
        refused = join(api, one.token, **copy)
        assert error(refused) == (409, "WORKER_CLONED")
        for word in ("host-1 (10.0.0.1)", "host-2 (10.0.0.2)", "systemd-machine-id-setup"):
            assert word in refused.json()["error"]["message"]
    silent_for(connection, 3600)
    assert error(join(api, one.token, **copy)) == (409, "WORKER_CLONED"), "a known copy never takes its place"
    assert beat(api, one.worker_id, one.token).status_code == 200

    assert kinds(connection).count("cloned") == 1
    cli("monitor", "--once")
    alerts = json.loads(cli("alerts", "list", "-o", "json").stdout)["alerts"]
    (told,) = [alert for alert in alerts if alert["kind"] == "worker_cloned"]
    assert "host-2 (10.0.0.2) is a copy of host-1 (10.0.0.1)" in told["title"]


def test_a_host_that_reboots_beside_its_copy_is_the_one_that_is_let_in(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    one = joined(api, context)
    copy = {"hostname": "host-2", "address": "10.0.0.2", "bootId": "boot-2", "instanceId": "process-2"}
    rebooted = {"bootId": "boot-3", "instanceId": "process-3"}
    assert error(join(api, one.token, **copy)) == (409, "REBOOT_UNCONFIRMED")
    beat(api, one.worker_id, one.token)
    assert error(join(api, one.token, **copy)) == (409, "WORKER_CLONED")
    assert error(join(api, one.token, **rebooted)) == (409, "REBOOT_UNCONFIRMED")
    silent_for(connection, 3600)
    assert error(join(api, one.token, **copy)) == (409, "WORKER_CLONED"), "it was not forgotten for the other"
    assert join(api, one.token, **rebooted).status_code == 201


def test_each_of_several_copies_is_noticed(api: httpx.Client, context: Context, connection: psycopg.Connection) -> None:
    one = joined(api, context)
    beat(api, one.worker_id, one.token)
    copies = [
        {"hostname": f"host-{n}", "address": f"10.0.0.{n}", "bootId": f"boot-{n}", "instanceId": f"process-{n}"}
        for n in (2, 3)
    ]
    for copy in copies:
        assert error(join(api, one.token, **copy)) == (409, "REBOOT_UNCONFIRMED")
    beat(api, one.worker_id, one.token)
    for _ in range(2):
        for copy in copies:
            assert error(join(api, one.token, **copy)) == (409, "WORKER_CLONED")
    assert kinds(connection).count("cloned") == 2
    silent_for(connection, 3600)
    for copy in copies:
        assert error(join(api, one.token, **copy)) == (409, "WORKER_CLONED")
    beat(api, one.worker_id, one.token)
    for n in range(20):  # by the operation, since the route lets a worker register only so often
        said = http.registration(registration_of(**copies[0] | {"bootId": f"other-{n}"}))
        with suppress(SkyctlError):
            registration.register(context, one.token, said)
        beat(api, one.worker_id, one.token)
    row = connection.execute("SELECT count(*) FROM container_workers, jsonb_object_keys(rivals)").fetchone()
    assert row == (identity.MOST_CLAIMANTS,)
    silent_for(connection, 3600)
    assert error(join(api, one.token, **copies[1])) == (409, "WORKER_CLONED"), "one that was told is forgotten last"


def test_a_reboot_is_no_copy(api: httpx.Client, context: Context, connection: psycopg.Connection) -> None:
    one = joined(api, context)
    beat(api, one.worker_id, one.token)
    quick = {"bootId": "boot-2", "instanceId": "process-2", "address": "10.0.0.7"}
    assert error(join(api, one.token, **quick)) == (409, "REBOOT_UNCONFIRMED")
    silent_for(connection, 30)
    assert 1 <= int(join(api, one.token, **quick).headers["Retry-After"]) <= 30
    silent_for(connection, 60)
    connection.execute(
        "UPDATE container_workers "
        "SET rivals = (SELECT jsonb_object_agg(key, value || jsonb_build_object('since', now())) "
        "FROM jsonb_each(rivals))"
    )
    assert join(api, one.token, **quick).status_code == 201
    assert beat(api, one.worker_id, one.token).status_code == 200
    assert "cloned" not in kinds(connection)


def test_two_that_came_back_while_nobody_could_hear_are_told_apart_by_the_next_token(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    one = joined(api, context)
    silent_for(connection, 3600)
    copy = {"hostname": "host-2", "address": "10.0.0.2", "bootId": "boot-2", "instanceId": "process-2"}
    let_in = join(api, one.token, **copy)
    assert let_in.status_code == 201
    new = let_in.json()["newToken"]
    assert beat(api, one.worker_id, new).status_code == 200, "before the other could be handed it, too"
    assert beat(api, one.worker_id, one.token).status_code == 401, "whoever has the old one is refused, and registers"
    assert error(join(api, one.token)) == (409, "REBOOT_UNCONFIRMED")
    assert beat(api, one.worker_id, new).status_code == 200
    assert error(join(api, one.token)) == (409, "WORKER_CLONED")


@pytest.mark.parametrize("takes_tokens", [True, False])
def test_whoever_registers_while_a_new_token_waits_is_handed_it(
    api: httpx.Client, context: Context, takes_tokens: bool
) -> None:
    one = joined(api, context)
    token_operations.rotate(context, one.worker_id, TESTS)
    answer = join(api, one.token, takesTokens=takes_tokens).json()
    assert ("newToken" in answer) == takes_tokens
    if takes_tokens:
        assert join(api, one.token).json()["newToken"] == answer["newToken"], "the first answer may have been lost"
        assert "newToken" not in join(api, answer["newToken"]).json()
        assert beat(api, one.worker_id, one.token).status_code == 401


def test_many_new_tokens_are_used_together(context: Context, connection: psycopg.Connection) -> None:
    """All but that of a worker that somebody else is changing, which is then used once more."""
    invited = [invitations.invite(context, TESTS, f"w{number}") for number in range(4)]
    for number, one in enumerate(invited):
        said = registration_of(hostname=f"host-{number}", address="10.0.0.1", machineId=f"{number}" * 64)
        registration.register(context, one.token, http.registration(said))
        token_operations.rotate(context, one.worker_id, TESTS)
    former = [Heartbeat(str(one.worker_id), tokens.fingerprint(one.token), Load(1.0, 2.0, 3.0, 4)) for one in invited]
    new = [each.new_token or "" for each in reply.take(context, former)]
    used = [each._replace(token_hash=tokens.fingerprint(token)) for each, token in zip(former, new, strict=True)]
    with psycopg.connect(connection.info.dsn) as other:
        other.execute("SELECT 1 FROM container_workers WHERE name = 'w3' FOR UPDATE")
        assert [each.new_token for each in reply.take(context, [former[0], *used[1:]])] == [new[0], None, None, None]
    assert [each.new_token for each in reply.take(context, former)] == [new[0], None, None, new[3]]
    reply.take(context, [used[3], used[3]])
    rotated = connection.execute("SELECT worker_name FROM worker_events WHERE kind = 'token_rotated'")
    assert sorted(name for (name,) in rotated) == ["w1", "w2", "w3"]


def test_a_stale_token_is_told_as_what_it_is(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    one = joined(api, context)
    token_operations.rotate(context, one.worker_id, TESTS)
    beat(api, one.worker_id, beat(api, one.worker_id, one.token).json()["newToken"])
    silent_for(connection, 3600)
    assert error(join(api, one.token, bootId="boot-2", instanceId="process-2")) == (401, "UNAUTHORIZED"), (
        "a disk of before, and no other host"
    )
    assert "cloned" not in kinds(connection)


def test_a_new_secret_signs_and_the_old_one_is_accepted_for_a_while(
    serve: Serve, cli: Cli, connection: psycopg.Connection, tmp_path: Path
) -> None:
    own = {"SKYCTL_JWT_SECRET": "", "SKYCTL_DATA_DIR": str(tmp_path / "data")}
    with httpx.Client(base_url=serve(**own)[0], timeout=PATIENCE_SECONDS) as api:
        invite = ("workers", "install-script", "--insecure", "-o", "json")
        before = json.loads(cli(*invite, **own).stdout)
        assert join(api, before["token"]).status_code == 201
        beat(api, before["workerId"], before["token"])
        cli("monitor", "--once", **own)
        assert cli("secrets", "rotate", "--overlap", "1d", **own).returncode == 0
        kept = tmp_path / "data" / "jwt-secret"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert len(kept.read_text().splitlines()) == 2

        assert join(api, before["token"]).status_code == 201, (
            "the server follows without a restart, and takes the old one"
        )
        after = json.loads(cli(*invite, **own).stdout)
        assert join(api, after["token"], machineId="n" * 64).status_code == 201
        cli("monitor", "--once", **own)
        new = beat(api, before["workerId"], before["token"]).json()["newToken"]
        assert beat(api, before["workerId"], new).status_code == 200
        assert "newToken" not in beat(api, after["workerId"], after["token"]).json()

        late = json.loads(cli(*invite, **own).stdout)["token"]
        assert join(api, after["token"], machineId="n" * 64, takesTokens=False).status_code == 201
        told = cli("secrets", "rotate", "--overlap", "1s", **own)
        assert told.returncode == 0
        assert "note: 1 worker cannot take a new token by itself" in told.stderr
        kept.write_text(kept.read_text().replace(kept.read_text().split()[3], datetime.now(UTC).isoformat()))
        assert error(join(api, late, machineId="o" * 64)) == (401, "UNAUTHORIZED")
        kept.write_text(kept.read_text().splitlines()[0] + "\n")
        assert cli("monitor", "--once", **own).returncode == 0
        last = beat(api, before["workerId"], new).json()["newToken"]
        assert join(api, last).status_code == 201, "it was away while both were accepted, and is not locked out"
        assert cli("monitor", "--once", **own).returncode == 0
        assert "newToken" not in beat(api, before["workerId"], last).json()
    assert kinds(connection).count("secret_rotated") == 2


def test_a_secret_that_was_set_is_replaced_where_it_was_set(cli: Cli, serve: Serve, context: Context) -> None:
    refused = cli("secrets", "rotate")
    assert refused.returncode == 4
    assert "SKYCTL_JWT_SECRET_PREVIOUS" in refused.stderr
    one = invitations.invite(context, TESTS)
    later = "the-secret-that-follows-the-one-of-the-tests"
    url, _ = serve(SKYCTL_JWT_SECRET=later, SKYCTL_JWT_SECRET_PREVIOUS=cli.environment["SKYCTL_JWT_SECRET"])
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as api:
        assert join(api, one.token).status_code == 201
    assert cli("workers", "list", SKYCTL_JWT_SECRET="", SKYCTL_JWT_SECRET_PREVIOUS="p" * 40).returncode == 2


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"\xc3\xbc", b"a" * 64 + b"\n" + b"b" * 64 + b" until 2099-01-01", b"", None]
)
def test_a_damaged_secret_keeps_no_heartbeat_from_its_answer(
    serve: Serve, cli: Cli, tmp_path: Path, content: bytes | None
) -> None:
    own = {"SKYCTL_JWT_SECRET": "", "SKYCTL_DATA_DIR": str(tmp_path / "data")}
    kept = tmp_path / "data" / "jwt-secret"
    with httpx.Client(base_url=serve(**own)[0], timeout=PATIENCE_SECONDS) as api:
        made = json.loads(cli("workers", "install-script", "--insecure", "-o", "json", **own).stdout)
        assert join(api, made["token"]).status_code == 201
        assert cli("workers", "rotate-token", made["workerId"], **own).returncode == 0
        good = kept.read_bytes()
        kept.unlink()
        if content is None:
            kept.mkdir()
        else:
            kept.write_bytes(content)
        answered = beat(api, made["workerId"], made["token"])
        assert (answered.status_code, "newToken" in answered.json()) == (200, False)
        assert error(beat(api, made["workerId"], "unknown")) == (500, "INTERNAL_ERROR")
        refused = cli("workers", "rotate-token", made["workerId"], **own)
        assert refused.returncode == 1
        assert str(kept) in refused.stderr
        assert "restore it from a backup" in refused.stderr
        kept.rmdir() if content is None else kept.unlink()
        kept.write_bytes(good)
        assert "newToken" in beat(api, made["workerId"], made["token"]).json()


def test_whatever_goes_wrong_with_a_reply_the_heartbeat_is_answered(
    api: httpx.Client, context: Context, connection: psycopg.Connection
) -> None:
    one = joined(api, context)
    token_operations.rotate(context, one.worker_id, TESTS)
    connection.execute("UPDATE container_workers SET rivals = '{\"somewhere\": {}}'")
    answered = beat(api, one.worker_id, one.token)
    assert (answered.status_code, "newToken" in answered.json()) == (200, False)
    assert error(beat(api, one.worker_id, one.token + "x")) == (401, "UNAUTHORIZED")
    assert error(beat(api, one.worker_id, invitations.invite_again(context, TESTS, one.worker_id).token)) == (
        500,
        "INTERNAL_ERROR",
    )


def test_keys_are_never_shown(tmp_path: Path) -> None:
    ring = Keyring(tmp_path, str)
    assert ring.signing().secret not in repr(ring.signing()) + repr(ring)
    (tmp_path / "jwt-secret").write_text("a" * 64 + "\n" + "b" * 64 + " until whenever\n")
    with pytest.raises(Exception, match="a line is no secret") as wrong:
        ring.signing()
    assert "bbb" not in str(wrong.value)
    with pytest.raises(Refused):
        Keyring(None, str, ["x"]).rotate(datetime.now(UTC), datetime.now(UTC))
