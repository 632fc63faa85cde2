"""What the agent says of its clock. The clock of its process alone is moved, by libfaketime."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.agent.peers import Manager
from tests.agent.process import Agent
from tests.support.false_clock import false_clock, needs_false_clock

Start = Callable[..., Agent]


def told_clock(manager: Manager, number: int = 1) -> datetime:
    """What the clock of that registration showed."""
    return datetime.fromisoformat(manager.registrations(number)[-1].body["metadata"]["clock"])


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def test_a_registration_says_what_the_clock_shows(manager: Manager, start: Start) -> None:
    began = now()
    start(apiUrl=manager.url)
    assert began <= told_clock(manager) <= datetime.now(UTC)


@needs_false_clock
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_wrong_changes_nothing_else(manager: Manager, start: Start, tmp_path: Path, hours: int) -> None:
    began = now()
    agent = start(apiUrl=manager.url, environ=false_clock(tmp_path, hours=hours))
    assert began <= told_clock(manager) - timedelta(hours=hours) <= datetime.now(UTC)
    manager.heartbeats(6)
    assert [request.path.rpartition("/")[2] for request in manager.requests.all()].count("register") == 1
    assert not [line for line in agent.lines.all() if "failures=" in line and "failures=0" not in line]


@needs_false_clock
def test_a_clock_that_is_set_is_told_again(manager: Manager, start: Start, tmp_path: Path) -> None:
    began = now()
    start(apiUrl=manager.url, environ=false_clock(tmp_path, hours=1))
    assert told_clock(manager) >= began + timedelta(hours=1)
    manager.heartbeats(2)
    false_clock(tmp_path, hours=-1)
    assert told_clock(manager, 2) <= datetime.now(UTC) - timedelta(hours=1)
    manager.heartbeats(8)
    assert [request.path.rpartition("/")[2] for request in manager.requests.all()].count("register") == 2
