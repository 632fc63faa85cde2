"""Hosts that register together: what is stored and told is what it would be alone, and none waits for another."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from skyctl.domain.cluster import Invitation, Registration
from skyctl.domain.errors import DatabaseUnavailable
from skyctl.operations.admin import tokens as token_operations
from skyctl.operations.admin import workers
from skyctl.operations.agents import admission, invitations, registration
from skyctl.operations.agents.admission import Admitted
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET
from tests.support.helpers import TESTS, worker_token
from tests.support.helpers import registration as plain

HOST = {"machineId": "m" * 64, "bootId": "boot-1", "instanceId": "process-1", "takesTokens": True}
REBOOTED = {"bootId": "boot-2", "instanceId": "process-2"}
OF_THE_WORKER = ("id", "name", "hostname", "metadata", "auth_token_hash", "next_token_hash")
OWN = ("clockOffsetSeconds", "swarmNodeId")
TIMES = ("created_at", "updated_at", "bound_at", "auth_token_expires_at", "next_token_issued_at", "agent_offered_at")


def said(number: int, address: str = "10.0.0.1", **metadata: object) -> Registration:
    own = {key: str(value).replace("HOST", f"host-{number}") for key, value in metadata.items() if key == "swarmNodeId"}
    host = plain(f"host-{number}", **HOST | metadata | own)
    return replace(host, ip_address=address, came_from=address)


def joined(context: Context, connection: psycopg.Connection, number: int) -> Invitation:
    """A worker that registered an hour ago."""
    one = invitations.invite(context, TESTS)
    registration.register(context, one.token, said(number, swarmNodeId=f"node-host-{number}"))
    connection.execute(
        "UPDATE container_workers SET bound_at = bound_at - interval '1 hour' WHERE id = %s", [one.worker_id]
    )
    return one


def row(connection: psycopg.Connection, worker_id: UUID) -> dict[str, Any]:
    """What is stored of a worker, but for what is each worker's own."""
    found = connection.execute("SELECT to_jsonb(w) FROM container_workers w WHERE id = %s", [worker_id]).fetchone()
    assert found
    stored: dict[str, Any] = found[0]
    own = {name: stored.pop(name) for name in OF_THE_WORKER}
    return {
        **{name: value is not None if name in TIMES else value for name, value in stored.items()},
        **{name: value and value.replace(own["hostname"], "HOST") for name, value in stored.items() if "node" in name},
        "is named after its host": own["name"] == f"worker-{own['hostname']}",
        "metadata": {key: value for key, value in own["metadata"].items() if key not in OWN},
        "has a next token": own["next_token_hash"] is not None,
    }


def told(connection: psycopg.Connection, worker_id: UUID) -> list[str]:
    query = "SELECT kind FROM worker_events WHERE worker_id = %s ORDER BY seq"
    return [kind for (kind,) in connection.execute(query, [worker_id])]


def offer(connection: psycopg.Connection, one: Invitation) -> None:
    connection.execute(
        "UPDATE container_workers SET agent_offered = %s, agent_offered_at = now() WHERE id = %s",
        ["a" * 64, one.worker_id],
    )


def set_labels(connection: psycopg.Connection, one: Invitation) -> None:
    labels = """metadata || '{"region": "eu", "kept": "yes"}'"""
    connection.execute(f"UPDATE container_workers SET metadata = {labels} WHERE id = %s", [one.worker_id])


def confirm(connection: psycopg.Connection, one: Invitation) -> None:
    connection.execute(
        "UPDATE container_workers SET swarm_node_id = swarm_node_claim, swarm_node_confirmed = swarm_node_claim, "
        "swarm_node_trouble = NULL "
        "WHERE id = %s",
        [one.worker_id],
    )


def nothing(_: psycopg.Connection, __: Invitation) -> None:
    pass


Prepare = Callable[[psycopg.Connection, Invitation], None]


@pytest.mark.parametrize(
    ("prepare", "how"),
    [
        pytest.param(nothing, {}, id="again"),
        pytest.param(nothing, REBOOTED, id="rebooted"),
        pytest.param(nothing, REBOOTED | {"takesTokens": False}, id="rebooted and takes no token"),
        pytest.param(nothing, {"address": "10.0.0.9"}, id="elsewhere"),
        pytest.param(nothing, {"region": "us", "pool": "gpu", "clock": "2026-11-29T12:00:00Z"}, id="claims"),
        pytest.param(set_labels, {"region": "us"}, id="labelled"),
        pytest.param(confirm, {"swarmNodeId": "node-HOST"}, id="the same node"),
        pytest.param(confirm, {"swarmNodeId": "other-HOST"}, id="another node"),
        pytest.param(confirm, {}, id="no node"),
        pytest.param(offer, {"agentSha256": "a" * 64, "agentVersion": "0.3.0"}, id="upgraded"),
        pytest.param(offer, {}, id="not upgraded"),
    ],
)
def test_together_is_stored_and_told_what_would_be_alone(
    context: Context, connection: psycopg.Connection, prepare: Prepare, how: dict[str, Any]
) -> None:
    workers = [joined(context, connection, number) for number in range(3)]
    for one in workers:
        prepare(connection, one)
    alone, *others = ((one.token, said(number, **how)) for number, one in enumerate(workers))
    shown = registration.register(context, *alone).worker
    admitted = admission.admit(context, others)
    for one, each in zip(workers[1:], admitted, strict=True):
        assert isinstance(each, Admitted)
        assert each.worker.id == one.worker_id
        assert (each.worker.swarm_node_id is None) == (shown.swarm_node_id is None)
        assert row(connection, one.worker_id) == row(connection, workers[0].worker_id)
        assert told(connection, one.worker_id) == told(connection, workers[0].worker_id)


def test_those_that_join_go_together(context: Context, connection: psycopg.Connection) -> None:
    invited = [invitations.invite(context, TESTS) for _ in range(3)]
    alone, *others = ((one.token, said(number)) for number, one in enumerate(invited))
    registration.register(context, *alone)
    admitted = [each.worker.name for each in admission.admit(context, others) if isinstance(each, Admitted)]
    assert admitted == ["worker-host-1", "worker-host-2"]
    for one in invited[1:]:
        assert row(connection, one.worker_id) == row(connection, invited[0].worker_id)
        assert told(connection, one.worker_id) == told(connection, invited[0].worker_id) == ["invited", "registered"]


def revoked(context: Context, one: Invitation) -> str:
    token_operations.revoke(context, one.worker_id, TESTS, None)
    return one.token


def invited_anew(context: Context, one: Invitation) -> str:
    return invitations.invite_again(context, TESTS, one.worker_id).token


def next_one(context: Context, one: Invitation) -> str:
    registration.register(context, one.token, said(1, **REBOOTED))
    return one.token


@pytest.mark.parametrize(
    ("token_of", "how"),
    [
        pytest.param(revoked, {}, id="revoked"),
        pytest.param(invited_anew, {}, id="invited anew"),
        pytest.param(
            lambda _, one: worker_token("another-secret-that-is-long-enough-for-it", one.worker_id), {}, id="forged"
        ),
        pytest.param(lambda _, one: worker_token(SECRET, one.worker_id), {}, id="replaced"),
        pytest.param(lambda _, one: one.token, {"machineId": "n" * 64}, id="another machine"),
        pytest.param(next_one, {"bootId": "boot-3"}, id="perhaps a copy"),
        pytest.param(lambda _, one: one.token, {f"k{number}": "x" * 4000 for number in range(5)}, id="too large"),
    ],
)
def test_who_is_to_be_judged_is_left_alone(
    context: Context,
    connection: psycopg.Connection,
    token_of: Callable[[Context, Invitation], str],
    how: dict[str, Any],
) -> None:
    one, other = (joined(context, connection, number) for number in (1, 2))
    token = token_of(context, one)
    before = row(connection, one.worker_id), told(connection, one.worker_id)
    left, admitted = admission.admit(context, [(token, said(1, **how)), (other.token, said(2, **REBOOTED))])
    assert left is None
    assert isinstance(admitted, Admitted)
    assert admitted.worker.id == other.worker_id
    assert (row(connection, one.worker_id), told(connection, one.worker_id)) == before


def test_of_one_worker_one_is_let_in_at_once(context: Context, connection: psycopg.Connection) -> None:
    one = joined(context, connection, 1)
    first, second = admission.admit(context, [(one.token, said(1)), (one.token, said(1, address="10.0.0.9"))])
    assert isinstance(first, Admitted)
    assert second is None, "what it says is not stored, and must not be answered as if it were"
    assert registration.register(context, one.token, said(1, address="10.0.0.9")).worker.ip_address == "10.0.0.9"


def test_whom_somebody_changes_keeps_no_other_waiting(
    context: Context, connection: psycopg.Connection, database_url: str
) -> None:
    """Nor does the log, where nothing is to be told; who needs it learns that it cannot be had."""
    all_invited = [joined(context, connection, number) for number in range(4)]
    asked = [(one.token, said(number, **REBOOTED)) for number, one in enumerate(all_invited)]
    asked[3] = all_invited[3].token, said(3, address="10.0.0.9")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT skyctl_lock_events()")
        other.execute("SELECT 1 FROM container_workers WHERE id = %s FOR UPDATE", [all_invited[1].worker_id])
        admitted = admission.admit(context, asked)
    assert isinstance(admitted[3], DatabaseUnavailable)
    found = [each.worker.id if isinstance(each, Admitted) else each for each in admitted[:3]]
    assert found == [all_invited[0].worker_id, None, all_invited[2].worker_id]


def test_those_that_a_restored_backup_has_forgotten_go_together(
    context: Context, connection: psycopg.Connection
) -> None:
    ids = [uuid4() for _ in range(3)]
    alone, *others = ((worker_token(SECRET, worker_id), said(number)) for number, worker_id in enumerate(ids))
    registration.register(context, *alone)
    assert all(isinstance(each, Admitted) for each in admission.admit(context, others))
    for worker_id in ids[1:]:
        assert row(connection, worker_id) == row(connection, ids[0])
        assert told(connection, worker_id) == told(connection, ids[0])


def test_one_that_was_removed_is_not_remembered(context: Context, connection: psycopg.Connection) -> None:
    one, other = (joined(context, connection, number) for number in (1, 2))
    workers.remove(context, one.worker_id, TESTS)
    left, admitted = admission.admit(context, [(one.token, said(1)), (other.token, said(2))])
    assert left is None
    assert isinstance(admitted, Admitted)
    assert connection.execute("SELECT count(*) FROM container_workers").fetchone() == (1,)
