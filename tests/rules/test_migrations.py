"""The state machine of migrations: what it may do, whatever the engine shows; and that no way leads to two
containers."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity, SwarmJoin
from skyctl.domain.engine import EndpointMode, EngineNode, EngineService, EngineTask, Observation
from skyctl.domain.errors import EngineUnavailable, MigrationNotFound, Refused
from skyctl.domain.workloads import MigrationSettings, MigrationState
from skyctl.operations.admin import drains, migrations
from skyctl.rules import migrations as rules
from skyctl.rules.migrations import Step
from tests.conftest import make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, look

SOURCE, TARGET, OTHER = "source", "target", "other"
PINS = rules.Pins(SOURCE, TARGET, "mine")
STATES = ["pending", "preparing", "starting", "running", "failed", "rejected", "shutdown", "complete", "orphaned"]

tasks = st.builds(
    EngineTask,
    id=st.just("task"),
    node_id=st.sampled_from([SOURCE, TARGET, OTHER, None]),
    state=st.sampled_from(STATES),
    wanted=st.sampled_from(["running", "ready", "shutdown", "remove"]),
    error=st.sampled_from(["", "no such image"]),
    container_id=st.none(),
    deployment_id=st.just(""),
    created_at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
)
shown = st.builds(
    EngineService,
    id=st.just("service"),
    name=st.just("service"),
    version=st.just(1),
    image=st.just("app:1"),
    labels=st.just({}),
    node_id=st.sampled_from([SOURCE, TARGET, OTHER, None]),
    replicas=st.just(1),
    endpoint_mode=st.just(EndpointMode.VIP),
    limits=st.just(Capacity()),
    update=st.sampled_from(["", "updating", "paused", "completed", "rollback_completed"]),
    tasks=st.lists(tasks, max_size=4).map(tuple),
)


@given(
    service=st.none() | shown,
    state=st.sampled_from(rules.UNDER_WAY),
    overdue=st.booleans(),
    up=st.fixed_dictionaries({SOURCE: st.booleans(), TARGET: st.booleans(), OTHER: st.booleans()}),
)
def test_no_step_is_ever_wrong(
    service: EngineService | None, state: MigrationState, up: dict[str, bool], *, overdue: bool
) -> None:
    nodes = {name: EngineNode(name, name, is_up=is_up, availability="active") for name, is_up in up.items()}
    seen = Observation(nodes, {} if service is None else {"service": service})
    step, reason, source_stopped, _ = rules.decide(state, seen, "service", PINS, overdue=overdue)
    if service is None:
        assert step is Step.GIVE_UP
        return
    on_target = [task for task in service.tasks if task.node_id == TARGET and task.state == task.wanted == "running"]
    left = [task for task in service.tasks if task.node_id == SOURCE and task.state in STATES[:4]]
    match step:
        case Step.COMPLETE:
            assert on_target
            assert service.node_id == TARGET
            assert source_stopped is not bool(left)
            assert source_stopped or overdue or not up[SOURCE], "a worker that is heard must have stopped its container"
        case Step.MOVE:
            assert service.node_id in (SOURCE, None)
            assert state is MigrationState.STARTING
            assert not overdue
        case Step.ROLL_BACK:
            assert service.node_id == TARGET
            assert not on_target or (left and up[SOURCE])
            assert overdue or service.update in rules.GIVEN_UP
        case Step.CANCEL:
            assert service.node_id == OTHER
        case Step.FAIL:
            assert service.node_id in (SOURCE, None)
            assert reason
        case Step.VERIFY:
            assert (service.node_id, state) == (TARGET, MigrationState.STARTING)
        case Step.WAIT:
            assert service.node_id == TARGET
            assert not overdue
        case Step.GIVE_UP:
            raise AssertionError("the engine has it")


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
@given(story=st.lists(acts, min_size=4, max_size=25))
def test_whatever_happens_each_service_ends_once_and_on_a_healthy_worker(
    fleet: Fleet, story: list[tuple[str, object]]
) -> None:
    begin_anew(fleet)
    for verb, subject in story:
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


def begin_anew(fleet: Fleet) -> None:
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
