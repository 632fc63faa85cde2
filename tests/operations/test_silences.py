"""While a worker's alerts are silenced the channels hear nothing of its health, and afterwards of what is still so."""

import json
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa

from skyctl.domain.engine import SwarmJoin
from skyctl.operations.admin import silences
from skyctl.operations.monitor import deliveries
from skyctl.store import alerts
from tests.conftest import make_context
from tests.support.fakes import FakeEngine, FakeNotifier
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user, look

HOUR = timedelta(hours=1)


@pytest.fixture
def notifier() -> FakeNotifier:
    return FakeNotifier()


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection, notifier: FakeNotifier) -> Iterator[Fleet]:
    """Ten workers, of which a few that fail are no mass failure."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine, notifier=notifier)
    fleet = Fleet(context, connection, engine)
    add_user(connection)
    fleet.add(*(f"w{number}" for number in range(10)))
    look(context)
    fleet.step()
    yield fleet
    context.db.close()


def silence(fleet: Fleet, *names: str, reason: str | None = None) -> None:
    silences.silence(fleet.context, [fleet.ids[name] for name in names], TESTS, HOUR, reason)


def heard(fleet: Fleet, notifier: FakeNotifier) -> list[str]:
    """What the channel is told by now, since the last time."""
    look(fleet.context)
    fleet.step()
    notifier.arrived.clear()
    with notifier.opened(notifier.channel) as send:
        while deliveries.deliver_next(fleet.context, notifier.channel, send):
            pass
    return [title for title, _ in notifier.arrived]


def later(fleet: Fleet, *but: str) -> None:
    """The silence is over; all but those that have failed are heard from."""
    fleet.context.db.ahead += HOUR + timedelta(seconds=1)
    fleet.beat(*(name for name in fleet.ids if name not in but))


def stored(fleet: Fleet) -> list[str]:
    return [title for (title,) in fleet.connection.execute("SELECT title FROM worker_alerts ORDER BY id")]


def test_the_channels_hear_nothing_and_the_database_everything(fleet: Fleet, notifier: FakeNotifier) -> None:
    silence(fleet, "w1", reason="memory is replaced")
    fleet.fail("w1")
    fleet.fail("w2")
    assert heard(fleet, notifier) == ["Worker w2 is offline"]
    assert stored(fleet) == ["Worker w2 is offline", "Worker w1 is offline"]
    noted = "SELECT worker_name, actor, reason FROM worker_events WHERE kind = 'alerts_silenced'"
    assert fleet.connection.execute(noted).fetchall() == [("w1", TESTS.name, "memory is replaced")]
    assert len(fleet.connection.execute("SELECT FROM notifications").fetchall()) == 2, "in the panel, as ever"


def test_what_is_still_so_at_the_end_is_told_then(fleet: Fleet, notifier: FakeNotifier) -> None:
    silence(fleet, "w1")
    fleet.fail("w1")
    assert heard(fleet, notifier) == []
    later(fleet, "w1")
    assert heard(fleet, notifier) == ["Worker w1 is offline"]
    fleet.heal("w1")
    assert heard(fleet, notifier) == ["Worker w1 has recovered"]


def test_what_came_and_went_meanwhile_is_never_told(fleet: Fleet, notifier: FakeNotifier) -> None:
    silence(fleet, "w1")
    fleet.fail("w1")
    fleet.step()
    fleet.heal("w1")
    assert heard(fleet, notifier) == []
    later(fleet)
    assert heard(fleet, notifier) == []
    assert stored(fleet) == ["Worker w1 is offline", "Worker w1 has recovered"]


def test_the_end_of_what_was_told_before_is_told_afterwards(fleet: Fleet, notifier: FakeNotifier) -> None:
    fleet.fail("w1")
    assert heard(fleet, notifier) == ["Worker w1 is offline"]
    silence(fleet, "w1")
    fleet.heal("w1")
    assert heard(fleet, notifier) == []
    later(fleet)
    assert heard(fleet, notifier) == ["Worker w1 has recovered"]


def test_it_is_told_though_other_trouble_came_and_went_meanwhile(fleet: Fleet, notifier: FakeNotifier) -> None:
    """As of a host that is repaired."""
    fleet.fail("w1")
    assert heard(fleet, notifier) == ["Worker w1 is offline"]
    silence(fleet, "w1")
    load = "UPDATE container_workers SET current_load = current_load || %s::jsonb WHERE id = %s"
    for percent in (99, 1):
        fleet.connection.execute(load, [json.dumps({"memoryPercent": percent}), fleet.ids["w1"]])
        fleet.heal("w1")
        assert heard(fleet, notifier) == []
    assert "Worker w1 is unhealthy" in " ".join(stored(fleet))
    later(fleet)
    [told] = heard(fleet, notifier)
    assert told.startswith("Worker w1 has recovered")


def test_what_fails_to_be_sent_waits_for_the_end_as_well(
    fleet: Fleet, notifier: FakeNotifier, connection: psycopg.Connection
) -> None:
    fleet.fail("w1")
    fleet.step()
    look(fleet.context)
    with fleet.context.db.transaction() as tx:
        [(number, channel)] = tx.execute(sa.text("SELECT alert_id, channel FROM alert_deliveries")).fetchall()
    silence(fleet, "w1")
    with fleet.context.db.transaction() as tx:
        alerts.note_failed(tx, number, channel, "refused", timedelta(seconds=1))
    waits = "SELECT next_attempt_at > now() + interval '30 min' FROM alert_deliveries"
    assert connection.execute(waits).fetchall() == [(True,)]
    assert heard(fleet, notifier) == []


def test_what_a_channel_has_not_taken_yet_waits_as_well(fleet: Fleet, notifier: FakeNotifier) -> None:
    fleet.fail("w1")
    fleet.step()
    silence(fleet, "w1")
    assert heard(fleet, notifier) == []
    later(fleet, "w1")
    assert heard(fleet, notifier) == ["Worker w1 is offline"]


def test_unsilenced_it_is_told_at_once(fleet: Fleet, notifier: FakeNotifier) -> None:
    silence(fleet, "w1")
    fleet.fail("w1")
    assert heard(fleet, notifier) == []
    assert [worker.name for worker in silences.silenced(fleet.context)] == ["w1"]
    assert silences.unsilence(fleet.context, fleet.ids["w1"], TESTS)
    assert heard(fleet, notifier) == ["Worker w1 is offline"]
    assert silences.silenced(fleet.context) == []
    assert silences.unsilence(fleet.context, fleet.ids["w1"], TESTS) is None


def test_many_at_once_are_told_together_without_the_silenced(fleet: Fleet, notifier: FakeNotifier) -> None:
    fleet.add(*(f"more-{number}" for number in range(20)))
    silence(fleet, "w1", "w2")
    for name in ("w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"):
        fleet.fail(name)
    assert heard(fleet, notifier) == ["6 workers are offline"]
    assert "w1" not in notifier.arrived[0][1]
    later(fleet, *(f"w{number}" for number in range(1, 9)))
    assert sorted(heard(fleet, notifier)) == ["Worker w1 is offline", "Worker w2 is offline"]


def test_it_ends_by_itself(fleet: Fleet, notifier: FakeNotifier) -> None:
    silence(fleet, "w1")
    later(fleet)
    assert silences.silenced(fleet.context) == []
    fleet.fail("w1")
    assert heard(fleet, notifier) == ["Worker w1 is offline"]
