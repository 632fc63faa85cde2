"""Whom the monitor tells what became of containers: members of theirs, administrators of each worker's."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import SwarmJoin
from skyctl.domain.states import MigrationPolicy
from skyctl.operations.admin import drains, migrations
from tests.conftest import make_context
from tests.support.fakes import FakeEngine, FakeNotifier
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user


@pytest.fixture
def notifier() -> FakeNotifier:
    return FakeNotifier()


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection, notifier: FakeNotifier) -> Iterator[Fleet]:
    """Three empty workers, an administrator, a member of the organization, and somebody else."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine, notifier=notifier)
    fleet = Fleet(context, connection, engine)
    fleet.add("w1", "w2", "w3")
    yield fleet
    context.db.close()


@pytest.fixture
def member(fleet: Fleet) -> UUID:
    """A member of the organization whose services these are."""
    add_user(fleet.connection, "user")
    user_id, _ = add_user(fleet.connection, "user")
    fleet.connection.execute(
        "INSERT INTO organization_members (organization_id, user_id) VALUES (%s, %s)", (fleet.organization.id, user_id)
    )
    return user_id


def told(fleet: Fleet) -> dict[str, list[tuple[UUID, str]]]:
    """By kind, who was told what."""
    found: dict[str, list[tuple[UUID, str]]] = {}
    for user_id, kind, message in fleet.connection.execute(
        "SELECT user_id, type, message FROM notifications ORDER BY created_at"
    ):
        found.setdefault(kind, []).append((user_id, message))
    return found


def test_members_hear_of_their_containers_and_administrators_of_the_worker(fleet: Fleet, member: UUID) -> None:
    admin, _ = add_user(fleet.connection)
    fleet.deploy("a", "b", to="w1")
    fleet.fail("w1")
    fleet.settle()
    heard = told(fleet)
    assert sorted(heard["container_migrated"]) == [
        (member, "Your container a was moved to another host"),
        (member, "Your container b was moved to another host"),
    ]
    assert heard["migration_summary"] == [(admin, "Containers of w1, which failed: 2 completed")]
    assert [who for who, _ in heard["worker_offline"]] == [admin]
    logged = fleet.connection.execute(
        "SELECT user_id, event_type, is_read, organization_id IS NOT NULL FROM activity_logs "
        "WHERE event_type LIKE 'alert.container%%' ORDER BY user_id NULLS FIRST"
    ).fetchall()
    assert logged == [(who, "alert.container_migrated", False, True) for who in (None, None, member, member)]


def test_many_containers_of_one_organization_are_one_alert(fleet: Fleet, member: UUID) -> None:
    names = [f"s{number}" for number in range(6)]
    fleet.deploy(*names, to="w1", cores=0.5)
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    heard: list[str] = []
    fleet.settle()
    heard = [message for _, message in told(fleet)["container_migrated"]]
    assert sum(1 if message.startswith("Your container ") else int(message.split()[0]) for message in heard) == 6
    assert {who for who, _ in told(fleet)["container_migrated"]} == {member}


def test_members_hear_of_a_failure_for_good_with_the_engines_words(fleet: Fleet, member: UUID) -> None:
    admin, _ = add_user(fleet.connection)
    fleet.deploy("a", to="w1")
    fleet.engine.absent = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(hours=1)))
    for _ in range(40):
        fleet.step()
        fleet.context.db.ahead += timedelta(seconds=20)
        fleet.beat()
    heard = told(fleet)
    assert heard["migration_failed"] == [
        (member, "Your container a could not be moved to another host: No such image: app:1")
    ]
    [(who, summary)] = heard["migration_summary"]
    assert who == admin
    assert "1 failed" in summary
    assert "Not moved: a" in summary
    assert [who for who, _ in heard["drain_incomplete"]] == [admin]


def test_administrators_are_asked_for_approval_once(fleet: Fleet) -> None:
    admin, _ = add_user(fleet.connection)
    fleet.deploy("a", "b", to="w1")
    migrations.set_policy(fleet.context, fleet.organization, MigrationPolicy.MANUAL, TESTS)
    fleet.fail("w1")
    fleet.settle()
    [(who, message)] = told(fleet)["manual_migration_required"]
    assert who == admin
    assert message.startswith("2 containers to be moved only when approved off w1: a, b.")


@pytest.mark.usefixtures("member")
def test_channels_are_the_administrators_alone(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.fail("w1")
    fleet.settle()
    sent = {
        row[0]
        for row in fleet.connection.execute(
            "SELECT a.kind FROM alert_deliveries d JOIN worker_alerts a ON a.id = d.alert_id"
        )
    }
    assert sent == {"worker_offline", "migration_summary"}
