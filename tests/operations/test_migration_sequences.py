"""Migrations under any sequence of failures, drains and decisions: each service ends on one healthy worker."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skyctl.domain.engine import SwarmJoin
from skyctl.domain.errors import EngineUnavailable, MigrationNotFound, Refused
from skyctl.domain.workloads import MigrationSettings
from skyctl.operations.admin import drains, migrations
from tests.conftest import make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, look


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    context = make_context(database_url, migrations=MigrationSettings(timeout=timedelta(seconds=30)))
    yield Fleet(context, connection, FakeEngine(None))
    context.db.close()


WORKERS, SERVICES = ("w1", "w2", "w3"), ("a", "b")
acts = st.one_of(
    st.tuples(st.just("step"), st.none()),
    st.tuples(st.sampled_from(["fail", "heal", "drain", "undrain", "sicken", "cure"]), st.sampled_from(WORKERS)),
    st.tuples(st.sampled_from(["cancel", "approve", "retry"]), st.sampled_from(SERVICES)),
    st.tuples(st.just("meddle"), st.tuples(st.sampled_from(SERVICES), st.sampled_from(WORKERS))),
    st.tuples(st.sampled_from(["engine away", "engine back", "time"]), st.none()),
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(sequence=st.lists(acts, min_size=4, max_size=25))
def test_whatever_happens_each_service_ends_once_and_on_a_healthy_worker(
    fleet: Fleet, sequence: list[tuple[str, object]]
) -> None:
    start_over(fleet)
    for verb, subject in sequence:
        act(fleet, verb, subject)
        fleet.beat(*[name for name, node in fleet.nodes.items() if fleet.engine.nodes[node].is_up])
        assert_once(fleet)
    for verb, subject in [
        ("engine back", None),
        *((verb, name) for name in WORKERS for verb in ("cure", "heal", "undrain")),
    ]:
        act(fleet, verb, subject)
    for _ in range(4):
        fleet.context.db.ahead += timedelta(minutes=6)  # longer than any pause, deadline or flapping lasts
        fleet.beat()
        look(fleet.context)
        fleet.settle()
    assert_once(fleet)
    assert all(each.finished_at for each in fleet.migrations().values())
    assert fleet.running() == {name: [where] for name, where in fleet.where().items()}


def start_over(fleet: Fleet) -> None:
    fleet.connection.execute("TRUNCATE container_services, container_workers, worker_events CASCADE")
    fleet.context.db.ahead = timedelta()
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    object.__setattr__(fleet.context, "engine", lambda: engine)
    fleet.engine = engine
    fleet.ids.clear()
    fleet.nodes.clear()
    fleet.add(*WORKERS)
    fleet.deploy(*SERVICES, to="w1")


def act(fleet: Fleet, verb: str, subject: object) -> None:
    name = str(subject)
    match verb:
        case "step":
            try:
                fleet.step()
            except EngineUnavailable:
                assert fleet.engine.unavailable
        case "fail":
            fleet.fail(name)
        case "heal":
            fleet.heal(name)
        case "drain":
            drains.drain(fleet.context, [fleet.ids[name]], TESTS)
            look(fleet.context)
        case "undrain":
            drains.undrain(fleet.context, fleet.ids[name], TESTS)
            look(fleet.context)
        case "sicken":
            fleet.engine.unhealthy.add((fleet.nodes[name], "app:1"))
        case "cure":
            fleet.engine.unhealthy.discard((fleet.nodes[name], "app:1"))
        case "cancel" | "approve" | "retry":
            decide(fleet, verb, name)
        case "meddle":
            assert isinstance(subject, tuple)
            meddle(fleet, *subject)
        case "engine away":
            fleet.engine.unavailable = "away"
        case "engine back":
            fleet.engine.unavailable = ""
        case "time":
            fleet.context.db.ahead += timedelta(seconds=40)


def decide(fleet: Fleet, verb: str, service: str) -> None:
    found = fleet.migrations().get(service)
    how = {"cancel": migrations.cancel, "approve": migrations.approve, "retry": migrations.retry}[verb]
    with suppress(Refused, MigrationNotFound):
        how(fleet.context, found.id if found else uuid4(), TESTS)


def meddle(fleet: Fleet, service: str, worker: str) -> None:
    """Somebody pins a service by hand."""
    current = fleet.services()[service].current
    away, fleet.engine.unavailable = fleet.engine.unavailable, ""
    found = fleet.engine.observe().services.get(current.swarm_service_id or "") if current else None
    if found:
        fleet.engine.move(found.id, found.version, fleet.nodes[worker], {})
    fleet.engine.unavailable = away


def assert_once(fleet: Fleet) -> None:
    """No service has two unfinished migrations, no deployment two completed ones."""
    twice = "SELECT {0} FROM container_migrations WHERE {1} GROUP BY {0} HAVING count(*) > 1"
    assert not fleet.connection.execute(twice.format("service_id", "finished_at IS NULL")).fetchall()
    assert not fleet.connection.execute(twice.format("source_deployment_id", "state = 'completed'")).fetchall()
