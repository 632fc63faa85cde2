"""The database's clock is set back: what is stored goes back with it, and nothing waits for the length of the step."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy.dialects.postgresql import TIMESTAMP

from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import SwarmJoin
from skyctl.domain.errors import ChannelFailed
from skyctl.domain.states import MigrationState
from skyctl.operations.admin import drains, migrations, workers
from skyctl.operations.agents import invitations
from skyctl.operations.agents.registration import register
from skyctl.operations.monitor import alerts, deliveries, retention
from skyctl.operations.shared import clock, leadership
from skyctl.store import clock as store
from skyctl.store import migrations as stored_migrations
from skyctl.store import tables
from tests.conftest import make_context
from tests.support.fakes import FakeEngine, FakeNotifier
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, look, registration

STEP = timedelta(hours=1)
SECOND = timedelta(seconds=1)

# Dates that somebody was told, orders of what happened, and places where a sweep goes on: nothing waits for them.
HISTORY = {
    "container_workers": {"created_at", "auth_token_expires_at", "invitation_expires_at", "token_revoked_at"},
    "container_services": {"created_at", "updated_at"},
    "container_migrations": {"source_stopped_at"},
    "install_links": {"made_at", "expires_at", "used_at"},
    "api_tokens": {"made_at", "expires_at", "last_used_at", "revoked_at"},
    "notifications": {"created_at"},
    "activity_logs": {"created_at", "read_at"},
    "worker_events": {"at"},
    "worker_alerts": {"at"},
    "alert_deliveries": {"delivered_at", "given_up_at"},
    "mass_failures": {"lifted_at"},
    "migration_pauses": {"ended_at"},
    "retention_sweeps": {"after_at"},
    "monitor_requests": {"taken_at"},
    "swarm_joins": {"updated_at"},
    "node_removals": {"asked_at"},
    "skyctl_installation": {"admin_tokens_from"},
    "skyctl_schema": {"applied_at"},
}


@pytest.fixture
def notifier() -> FakeNotifier:
    return FakeNotifier(fails=[True])


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection, notifier: FakeNotifier) -> Iterator[Fleet]:
    """Two empty workers, and a monitor that has just looked at them."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine, notifier=notifier)
    fleet = Fleet(context, connection, engine)
    fleet.add("w1", "w2")
    look(context)
    yield fleet
    context.db.close()


def step_back(fleet: Fleet) -> None:
    """Set the clock back; the next look of whoever runs finds that."""
    fleet.context.db.ahead -= STEP
    [event] = clock.follow_back(fleet.context, "tests")
    assert event.kind == "clock_set"
    assert clock.follow_back(fleet.context, "tests") == [], "once"


def silence(fleet: Fleet, ago: str) -> None:
    """w1 was last heard so long ago."""
    heard = "UPDATE container_workers SET last_heartbeat_at = now() - CAST(%s AS interval) WHERE name = 'w1'"
    fleet.connection.execute(heard, (ago,))


def nobody(_holder: str) -> bool:
    return False


def test_the_lead_is_free_as_soon_as_ever(fleet: Fleet) -> None:
    context = fleet.context
    assert leadership.lead(context, "a", nobody)
    step_back(fleet)
    assert leadership.lead(context, "b", nobody) is None, "the lease stands"
    context.db.ahead += leadership.TTL + SECOND
    assert leadership.lead(context, "b", nobody)


def test_a_stopped_worker_that_beats_again_is_active(fleet: Fleet) -> None:
    workers.note_stopped(fleet.context, fleet.ids["w1"], TESTS)
    look(fleet.context)
    step_back(fleet)
    fleet.beat("w1")
    [event] = look(fleet.context).events
    assert (event.worker_name, event.to_status) == ("w1", "active")


def test_a_row_that_was_written_after_the_step_holds_no_mark_that_lies_ahead(fleet: Fleet) -> None:
    silence(fleet, "2 h")
    look(fleet.context)
    fleet.context.db.ahead -= STEP
    workers.label(fleet.context, fleet.ids["w1"], TESTS, {"region": "eu"})
    assert clock.follow_back(fleet.context, "tests")
    fleet.context.db.ahead += SECOND
    fleet.beat("w1")
    [event] = look(fleet.context).events
    assert (event.worker_name, event.to_status) == ("w1", "active")


def test_a_failed_migration_is_tried_again_in_its_time(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.unhealthy = {(fleet.nodes["w2"], "app:1")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.step()
    while fleet.migrations()["a"].state is not MigrationState.FAILED:
        fleet.step()
    step_back(fleet)
    term = fleet.term()
    with term.reading() as tx:
        assert (stored_migrations.next_due_seconds(tx) or 0) < STEP.total_seconds() / 2


def test_what_was_given_some_time_ends_after_that(fleet: Fleet) -> None:
    context = fleet.context
    migrations.pause(context, TESTS, timedelta(minutes=5), None)
    drains.drain(context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(minutes=5)))
    step_back(fleet)
    with context.db.transaction() as tx:
        left = "SELECT max(until_at) - skyctl_now(), max(drain_deadline_at) - skyctl_now()"
        pause, drain = tx.exec_driver_sql(f"{left} FROM migration_pauses, container_workers").one()
    assert max(pause, drain) < timedelta(minutes=6)


def test_alerts_are_delivered_and_rows_removed_in_their_time(fleet: Fleet, notifier: FakeNotifier) -> None:
    context = fleet.context
    term = fleet.term()
    alerts.raise_alerts(term)
    retention.prune(term)
    fleet.fail("w1")
    alerts.raise_alerts(fleet.term())
    with context.notifier().opened(notifier.channel) as send, pytest.raises(ChannelFailed):
        deliveries.deliver_next(context, notifier.channel, send)
    step_back(fleet)
    assert (deliveries.seconds_to_next(context, notifier.channel) or 0) < STEP.total_seconds() / 2
    with context.db.transaction() as tx:
        assert tx.exec_driver_sql("SELECT count(*), max(swept_at) <= skyctl_now() FROM retention_sweeps").one()[1]


def test_changes_before_the_step_are_not_within_the_window_of_flapping(fleet: Fleet) -> None:
    for _ in range(2):
        fleet.fail("w1")
        fleet.heal("w1")
    fleet.connection.execute("UPDATE container_workers SET flapping_since = NULL")
    step_back(fleet)
    fleet.connection.execute(
        "UPDATE container_workers SET last_heartbeat_at = now() - interval '3 h' WHERE name = 'w1'"
    )
    assert [event.kind for event in look(fleet.context).events] == ["status_changed"]


def test_a_large_cluster_has_the_time_for_it(fleet: Fleet) -> None:
    """Each worker is written once, and longer than anything else may take is not too long."""
    fleet.connection.execute("""
        CREATE TABLE seen (may_take interval);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen VALUES (current_setting('statement_timeout')::interval); RETURN NULL;
        END $$;
        CREATE TRIGGER see AFTER UPDATE ON container_workers FOR EACH STATEMENT EXECUTE FUNCTION see()
    """)
    step_back(fleet)
    seen = fleet.connection.execute("SELECT * FROM seen").fetchall()
    assert seen == [(timedelta(seconds=clock.MOVE_SECONDS),)]


def test_an_offline_worker_stays_offline_and_a_host_may_come_back_elsewhere(fleet: Fleet) -> None:
    context = fleet.context
    invitation = invitations.invite(context, TESTS, "w3")
    register(context, invitation.token, registration("h", machineId="m", bootId="1", instanceId="1"))
    fleet.connection.execute(
        "UPDATE container_workers SET last_heartbeat_at = now() - interval '1 h' WHERE name = 'w1'"
    )
    look(context)
    step_back(fleet)
    assert look(context).events == []
    context.db.ahead += timedelta(minutes=5)
    assert register(context, invitation.token, registration("h", machineId="m", bootId="2", instanceId="2"))


def test_every_stored_time_is_known_to_be_moved_or_history() -> None:
    moved = {
        "container_workers": {"last_heartbeat_at", *store.OF_WORKERS},
        "alert_deliveries": {"next_attempt_at"},
        "monitor_leases": {"expires_at"},
    }
    for table, written, others in store.MOVED:
        moved.setdefault(table.name, set()).update({written, *others})
    for table in tables.metadata.tables.values():
        times = {column.name for column in table.c if isinstance(column.type, TIMESTAMP)}
        assert times == moved.get(table.name, set()) | HISTORY.get(table.name, set()), table.name
