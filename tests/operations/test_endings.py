"""What is to run is started again however often it ends, and a container that keeps ending is told of."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from skyctl.operations.admin import services
from skyctl.rules import restarts
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user

SECOND = timedelta(seconds=1)
EVERYWHERE = "*"


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Two workers, an administrator, and a member of the organization."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        add_user(connection)
        yield fleet


def kinds(fleet: Fleet) -> list[str]:
    rows = fleet.connection.execute("SELECT kind FROM worker_events WHERE kind LIKE 'service_%' ORDER BY seq")
    return [kind for (kind,) in rows if kind != "service_deployed"]


def alerts(fleet: Fleet) -> list[tuple[str, str]]:
    rows = fleet.connection.execute("SELECT title, message FROM worker_alerts WHERE kind LIKE 'service_%' ORDER BY id")
    return [(title, message) for title, message in rows]


def pass_time(fleet: Fleet, time: timedelta) -> None:
    fleet.context.db.ahead += time
    fleet.beat()


def long_since(fleet: Fleet) -> None:
    """What runs has run for long."""
    pass_time(fleet, restarts.WITHIN + SECOND)
    fleet.step()


def keep_ending(fleet: Fleet, exit_code: int = 1) -> None:
    fleet.engine.ending = {(EVERYWHERE, "app:1"): exit_code}
    fleet.settle()
    fleet.settle()


def status(fleet: Fleet) -> str:
    return fleet.services()["web"].status.value


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(0, "its container has ended with exit code 0"), (3, "task: non-zero exit (3)")],
)
def test_what_ran_and_keeps_ending_is_told_once_with_the_engines_words_and_so_is_its_end(
    fleet: Fleet, exit_code: int, words: str
) -> None:
    fleet.deploy("web", to="w1")
    long_since(fleet)
    keep_ending(fleet, exit_code)
    assert status(fleet) == "running", "it is still the one that is to run, and its room is its own"
    assert kinds(fleet) == ["service_running", "service_keeps_ending"]
    reason = str(fleet.services()["web"].ending_reason)
    assert reason.startswith("its container ended 3 times within ")
    assert reason.endswith(f"the last time: {words}")
    administrators, members = alerts(fleet)
    assert (administrators[0], members[0]) == ("Service web keeps ending", "Your service web keeps ending")
    assert words in administrators[1]
    assert ["(on w1)" in message for _, message in alerts(fleet)] == [True, False], "members do not learn of workers"
    fleet.engine.ending = {}
    fleet.engine.settle()
    fleet.settle()
    assert len(kinds(fleet)) == 2, "a container that runs a moment is no end of it"
    pass_time(fleet, restarts.SETTLED + SECOND)
    fleet.settle()
    assert kinds(fleet)[2:] == ["service_keeps_running"]
    assert fleet.services()["web"].ending_reason is None
    assert [title for title, _ in alerts(fleet)[2:]] == [
        "Service web no longer keeps ending",
        "Your service web no longer keeps ending",
    ]


def test_a_few_ends_over_a_long_time_are_not_told(fleet: Fleet) -> None:
    fleet.deploy("web", to="w1")
    [service_id] = fleet.engine.observe().services
    for _ in range(6):
        long_since(fleet)
        fleet.engine.end(service_id, 0)
        fleet.engine.settle()
        fleet.settle()
        assert fleet.running() == {"web": ["w1"]}, "it is started again each time"
    assert kinds(fleet) == ["service_running"]
    assert alerts(fleet) == []


def test_ends_that_were_long_ago_when_somebody_looks_are_not_told(fleet: Fleet) -> None:
    fleet.deploy("web", to="w1")
    [service_id] = fleet.engine.observe().services
    pass_time(fleet, restarts.WITHIN + SECOND)
    for _ in range(restarts.ENDS):
        fleet.engine.end(service_id, 1)
        fleet.engine.settle()
    fleet.settle()
    assert (kinds(fleet), status(fleet)) == (["service_running"], "running")


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_first_deployment_whose_container_always_ends_has_failed(fleet: Fleet, exit_code: int) -> None:
    fleet.engine.ending = {(EVERYWHERE, "app:1"): exit_code}
    fleet.deploy("web", to="w1")
    found = fleet.services()["web"]
    assert found.status == "failed"
    assert found.current
    assert ("exit code 0", "non-zero exit (1)")[exit_code] in found.current.log
    before = kinds(fleet)
    assert before[-2:] == ["service_failed", "service_keeps_ending"]
    fleet.settle()
    assert kinds(fleet) == before, "a container that runs for a moment each time is no news"
    fleet.engine.ending = {}
    fleet.engine.settle()
    fleet.settle()
    pass_time(fleet, restarts.SETTLED + SECOND)
    fleet.settle()
    assert (status(fleet), kinds(fleet)[-2:]) == ("running", ["service_keeps_running", "service_running"])


def test_an_update_whose_container_always_ends_goes_back(fleet: Fleet) -> None:
    fleet.deploy("web", to="w1")
    fleet.engine.ending = {(EVERYWHERE, "app:2"): 0}
    fleet.deploy("web", to="w1", image="app:2")
    found = fleet.services()["web"]
    assert (found.status, found.spec.image) == ("running", "app:1")
    assert kinds(fleet)[-1] == "service_rolled_back"
    assert fleet.running() == {"web": ["w1"]}


def test_one_that_keeps_ending_and_is_removed_or_stopped_is_not_said_to_run(fleet: Fleet) -> None:
    fleet.deploy("web", to="w1")
    long_since(fleet)
    keep_ending(fleet)
    [service_id] = fleet.engine.observe().services
    fleet.engine.stop(service_id)
    fleet.settle()
    assert (status(fleet), kinds(fleet)[-1]) == ("stopped", "service_stopped")
    assert fleet.services()["web"].ending_reason is None
    services.remove(fleet.context, fleet.services()["web"].id, TESTS)
    fleet.settle()
    assert kinds(fleet)[-1] == "service_removed"
