"""The migrator's steps: what each asks the engine."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from skyctl.domain.engine import Observation
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.workloads import Deployment
from skyctl.monitor import migrator as migrator_module
from skyctl.monitor.migrator import Migrator
from skyctl.operations.admin import drains, migrations
from skyctl.operations.monitor import drains as monitor_drains
from skyctl.operations.shared import leadership
from tests.operations.fleets import fleet_of
from tests.support.fake_placed import replicated
from tests.support.fleet import Fleet
from tests.support.helpers import PATIENCE_SECONDS, TESTS, eventually, look


def held(fleet: Fleet, name: str) -> Deployment:
    """The deployment of a service, of which no container gets healthy from now on."""
    current = fleet.services()[name].current
    assert current
    fleet.engine.hold(current.swarm_service_id or "")
    return current


@contextmanager
def leading(fleet: Fleet) -> Iterator[Migrator]:
    """A migrator whose thread works in a term."""
    migrator = Migrator(lambda _events, _raised: None)
    migrator.start()
    migrator.lead(fleet.term())
    try:
        yield migrator
    finally:
        migrator.lead(None)
        migrator._loop.end()  # a step that is under way has the database


@pytest.fixture(autouse=True)
def long_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """No main loop of a monitor prolongs the lease."""
    monkeypatch.setattr(leadership, "TTL", timedelta(hours=1))


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        yield fleet


def test_nodes_are_looked_at_now_and_then_and_at_once_when_there_is_news(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that is on its way has steps follow one another."""
    monkeypatch.setattr(monitor_drains, "LOOK_SECONDS", 3600.0)
    asked: list[str] = []

    def noted(name: str) -> Callable[..., object]:
        ask = getattr(fleet.engine, name)

        def note(*arguments: object) -> object:
            asked.append(name)
            return ask(*arguments)

        return note

    for name in ("tasks_on", "observe"):
        monkeypatch.setattr(fleet.engine, name, noted(name))
    fleet.deploy("web", to="w1")
    fleet.deploy("slow", to="w2")
    on_its_way = held(fleet, "slow")
    fleet.connection.execute("UPDATE container_deployments SET status = 'deploying' WHERE id = %s", (on_its_way.id,))
    held(fleet, "web")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    look(fleet.context)
    state = "SELECT status FROM container_deployments WHERE id = %s"
    with leading(fleet) as migrator:
        eventually(lambda: asked.count("tasks_on") == 2)  # and once more when the node is closed
        first, steps = asked.count("tasks_on"), asked.count("observe") + 20
        eventually(lambda: asked.count("observe") > steps)
        fleet.engine.release(on_its_way.swarm_service_id or "")
        eventually(lambda: fleet.connection.execute(state, (on_its_way.id,)).fetchone() == ("running",))
        assert asked.count("tasks_on") == first
        migrator.wake()
        eventually(lambda: asked.count("tasks_on") > first)


def test_what_only_waits_leaves_the_database_alone_and_gets_on_with_the_engine(
    fleet: Fleet, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step holds the log and the lease, and reads all that could call for another one."""
    monkeypatch.setattr(monitor_drains, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(migrator_module, "RECONCILE_ALL_SECONDS", 3600.0)
    fleet.deploy("web", to="w1")
    service = held(fleet, "web")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    look(fleet.context)
    asked: list[object] = []
    observe, silent = fleet.engine.observe, threading.Event()

    def note(service_ids: Collection[str] | None = None) -> Observation:
        asked.append(service_ids)
        if silent.is_set():
            raise EngineUnavailable("it is silent", "wait")
        return observe(service_ids)

    monkeypatch.setattr(fleet.engine, "observe", note)

    def is_left_alone() -> bool:
        """Whether nothing of the database changes while the engine is asked some times more."""
        before, until = connection.execute("SELECT * FROM monitor_leases").fetchall(), len(asked) + 10
        eventually(lambda: len(asked) > until)
        return connection.execute("SELECT * FROM monitor_leases").fetchall() == before

    def state() -> object:
        return connection.execute("SELECT state FROM container_migrations").fetchall()

    with leading(fleet):
        eventually(lambda: state() == [("verifying",)])
        eventually(is_left_alone)
        silent.set()
        eventually(lambda: migrations.list_migrations(fleet.context).engine_trouble == "it is silent")
        silent.clear()
        eventually(lambda: not migrations.list_migrations(fleet.context).engine_trouble)
        eventually(is_left_alone)
        fleet.engine.release(service.swarm_service_id or "")
        eventually(lambda: state() == [("completed",)])


def test_what_waits_for_a_node_to_be_closed_is_called_for_as_soon_as_it_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second of each drain went by until the next look."""
    monkeypatch.setattr(monitor_drains, "LOOK_SECONDS", 3600.0)
    fleet.engine.place(replicated("web", replicas=2))
    assert fleet.running()["web"] == ["w1", "w2"]
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    look(fleet.context)
    Migrator(lambda _events, _raised: None).run_until_idle(fleet.term(), PATIENCE_SECONDS)
    assert fleet.running()["web"] == ["w2", "w2"]


def test_one_run_goes_on_however_long_the_engine_takes_for_an_answer(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits shorter than that is due in this run; how long a step took is no wait."""
    monkeypatch.setattr(migrator_module, "ONCE_SECONDS", 0.2)
    fleet.deploy("web", to="w1")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    look(fleet.context)
    observe = fleet.engine.observe

    def slowly(*ids: Any) -> object:
        threading.Event().wait(0.2)
        return observe(*ids)

    monkeypatch.setattr(fleet.engine, "observe", slowly)
    Migrator(lambda _events, _raised: None).run_until_idle(fleet.term(), PATIENCE_SECONDS)
    assert fleet.where() == {"web": "w2"}
