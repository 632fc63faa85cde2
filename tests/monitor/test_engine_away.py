"""An engine that does not answer: only its answer ends that, and where it lasts administrators are told, once."""

import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest

from skyctl.domain.cluster import Event
from skyctl.monitor.migrator import Migrator
from skyctl.operations.admin import migrations
from skyctl.operations.monitor.alerts import RaisedAlerts
from tests.support.fleet import Fleet

GONE = "the engine does not answer"
MINUTE = timedelta(minutes=1)


class Steps:
    """A migrator, one step at a time, and the alerts that came of them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.alerts: list[str] = []
        self.anew()

    def anew(self) -> None:
        """Another monitor leads."""
        self._migrator, self._term = Migrator(self._moved), self.fleet.term()

    def take(self, *, after: timedelta = timedelta()) -> str | None:
        """One step; why the engine cannot be asked, as people are shown it then."""
        self.fleet.context.db.ahead += after
        self._term = self.fleet.term()
        self._migrator.run_until_idle(self._term, 0)
        return migrations.list_migrations(self.fleet.context).engine_trouble

    def _moved(self, _events: Sequence[Event], raised: RaisedAlerts) -> None:
        self.alerts += [alert.kind for alert in raised.alerts]


@pytest.fixture
def steps(trio: Fleet, caplog: pytest.LogCaptureFixture) -> Steps:
    caplog.set_level(logging.INFO, "skyctl.monitor.migrator")
    trio.deploy("a", to="w1")
    return Steps(trio)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of the engine."""
    return [record.getMessage().split()[0] for record in caplog.records if "action=engine_" in record.getMessage()]


def test_only_an_answer_ends_it(steps: Steps, caplog: pytest.LogCaptureFixture) -> None:
    """What is not asked does not answer."""
    assert steps.take() is None
    steps.anew()
    steps.fleet.engine.unavailable = GONE
    assert [steps.take() for _ in range(3)] == [GONE] * 3
    steps.anew()
    assert steps.take() == GONE
    steps.fleet.engine.unavailable = ""
    assert [steps.take() for _ in range(2)] == [None, None]
    assert said(caplog) == ["action=engine_away", "action=engine_away", "action=engine_answers"]


def test_another_monitor_ends_what_the_one_before_has_noted(steps: Steps, caplog: pytest.LogCaptureFixture) -> None:
    steps.fleet.engine.unavailable = GONE
    steps.take()
    steps.anew()
    steps.fleet.engine.unavailable = ""
    assert steps.take() is None
    assert said(caplog) == ["action=engine_away", "action=engine_answers"]


def test_of_what_lasts_administrators_are_told_once_and_of_its_end(steps: Steps) -> None:
    steps.fleet.engine.unavailable = GONE
    for after in (0, 1, 0.9):
        steps.take(after=after * MINUTE)
        assert steps.alerts == []
    for _ in range(3):
        steps.take(after=0.2 * MINUTE)
        assert steps.alerts == ["engine_lost"]
    steps.anew()
    steps.take(after=MINUTE)
    assert steps.alerts == ["engine_lost"]
    steps.fleet.engine.unavailable = ""
    for _ in range(2):
        steps.take()
        assert steps.alerts == ["engine_lost", "engine_back"]
    steps.take(after=5 * MINUTE)
    steps.fleet.engine.unavailable = GONE
    steps.anew()
    steps.take()
    assert steps.alerts == ["engine_lost", "engine_back"], "it counts anew"


def test_what_is_short_is_no_alert(steps: Steps) -> None:
    for reason in (GONE, "", GONE, ""):
        steps.fleet.engine.unavailable = reason
        steps.anew()
        steps.take(after=1.5 * MINUTE)
    assert steps.alerts == []


def test_time_in_which_nobody_asked_does_not_count(steps: Steps) -> None:
    steps.fleet.engine.unavailable = GONE
    steps.take()
    steps.anew()
    steps.take(after=60 * MINUTE)
    assert steps.alerts == []


def test_it_is_told_where_no_container_waits_for_it_either(trio: Fleet) -> None:
    steps = Steps(trio)
    trio.engine.unavailable = GONE
    assert steps.take() == GONE
    steps.take(after=2.1 * MINUTE)
    assert steps.alerts == ["engine_lost"]
