"""Containers follow the health of their workers: what the monitor calls for, and every step of it."""

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

import psycopg
import pytest
from rich.console import Console

from skyctl.cli.views import top
from skyctl.documents.cli import overview_document
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import SwarmJoin
from skyctl.domain.errors import EngineUnavailable, Refused
from skyctl.domain.states import MigrationPolicy, MigrationState
from skyctl.domain.workloads import MigrationSettings
from skyctl.operations.admin import drain_plans, drains, migrations, overview, services, workers
from skyctl.operations.shared import lookup
from tests.conftest import make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user, look

UNHEALTHY = "unhealthy container"


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Three empty workers."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine, migrations=MigrationSettings(timeout=timedelta(minutes=5)))
    fleet = Fleet(context, connection, engine)
    fleet.add("w1", "w2", "w3")
    yield fleet
    context.db.close()


def states(fleet: Fleet) -> dict[str, str]:
    return {name: each.state.value for name, each in fleet.migrations().items()}


def told(fleet: Fleet, kind: str) -> list[str]:
    rows = fleet.connection.execute("SELECT message FROM worker_alerts WHERE kind = %s ORDER BY id", (kind,))
    return [row[0] for row in rows]


def pass_time(fleet: Fleet, **time: float) -> None:
    """Let the database's clock go on, and every living worker beat."""
    fleet.context.db.ahead += timedelta(**time)


def test_the_containers_of_a_failed_worker_run_elsewhere(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    assert fleet.where() == {"a": "w1", "b": "w1"}
    fleet.fail("w1")
    fleet.settle()
    assert sorted(str(name) for name in fleet.where().values()) == ["w2", "w3"]
    assert states(fleet) == {"a": "completed", "b": "completed"}
    assert all(each.source_stopped_at is None for each in fleet.migrations().values()), (
        "the lost worker may still run them"
    )
    history = [event.kind for event in migrations.history(fleet.context, fleet.migrations()["a"].id)]
    assert history == ["migration_queued", "migration_started", "migration_completed"]


def test_what_is_not_over_is_counted(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    assert overview.overview(fleet.context, 1).migrations == {}
    migrations.set_policy(fleet.context, fleet.organization, MigrationPolicy.MANUAL, TESTS)
    fleet.fail("w1")
    fleet.settle()
    migrations.approve(fleet.context, fleet.migrations()["a"].id, TESTS)
    seen = overview.overview(fleet.context, 1)
    assert seen.migrations == {"awaiting_approval": 1, "queued": 1}
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(*top.page(overview_document(seen)), sep="\n")
    assert "1 to approve  1 to move" in drawn.getvalue()


def test_the_orphaned_containers_of_a_worker_that_returns_are_gone_and_nothing_moves_back(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.fail("w1")
    fleet.settle()
    [elsewhere] = set(fleet.where().values())
    assert fleet.running() == {"a": sorted(["w1", str(elsewhere)])}
    fleet.heal("w1")
    kinds = [event.kind for event in fleet.settle()]
    assert kinds == ["ghost_stopped"]
    assert fleet.running() == {"a": [elsewhere]}
    assert fleet.migrations()["a"].source_stopped_at is not None


def test_a_worker_that_returns_before_anything_started_keeps_its_containers(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    migrations.pause(fleet.context, TESTS, None, "maintenance")
    fleet.fail("w1")
    fleet.settle()
    assert states(fleet) == {"a": "queued"}
    fleet.heal("w1")
    fleet.settle()
    assert states(fleet) == {"a": "cancelled"}
    assert fleet.migrations()["a"].reason == "the worker is back"
    assert fleet.where() == {"a": "w1"}
    assert told(fleet, "migration_summary") == []


def test_a_pause_holds_what_has_not_begun_until_it_is_over(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    migrations.pause(fleet.context, TESTS, timedelta(hours=2), "maintenance")
    fleet.fail("w1")
    fleet.settle()
    assert states(fleet) == {"a": "queued"}
    page = migrations.list_migrations(fleet.context)
    assert page.pause is not None
    assert page.pause.reason == "maintenance"
    pass_time(fleet, hours=2, seconds=1)
    fleet.settle()
    assert states(fleet) == {"a": "completed"}
    assert migrations.list_migrations(fleet.context).pause is None


def test_resume_ends_a_pause(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    migrations.pause(fleet.context, TESTS, None, None)
    fleet.fail("w1")
    fleet.settle()
    assert migrations.resume(fleet.context, TESTS) == (True, [])
    fleet.settle()
    assert states(fleet) == {"a": "completed"}


def test_manual_waits_for_approval(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    migrations.set_policy(fleet.context, fleet.organization, MigrationPolicy.MANUAL, TESTS)
    fleet.fail("w1")
    fleet.settle()
    assert states(fleet) == {"a": "awaiting_approval", "b": "awaiting_approval"}
    [alert] = told(fleet, "manual_migration_required")
    assert "2 containers" in alert
    found = fleet.migrations()
    migrations.approve(fleet.context, found["a"].id, TESTS)
    migrations.reject(fleet.context, found["b"].id, TESTS)
    fleet.settle()
    assert states(fleet) == {"a": "completed", "b": "cancelled"}
    assert fleet.where()["b"] == "w1"
    fleet.settle()
    assert len(migrations.list_migrations(fleet.context).migrations) == 2, "a rejected one is not called for again"
    with pytest.raises(Refused, match="b's migration is cancelled"):
        migrations.approve(fleet.context, found["b"].id, TESTS)


def test_none_moves_nothing_and_bothers_nobody(fleet: Fleet) -> None:
    add_user(fleet.connection)
    fleet.deploy("a", to="w1")
    migrations.set_policy(fleet.context, fleet.organization, MigrationPolicy.NONE, TESTS)
    fleet.fail("w1")
    fleet.settle()
    assert states(fleet) == {}
    kinds = fleet.connection.execute("SELECT kind FROM worker_alerts").fetchall()
    assert kinds == [("worker_offline",)]


def test_a_mass_failure_holds_and_resume_lets_go(fleet: Fleet) -> None:
    fleet.add("w4", "w5")
    for name in ("w1", "w2", "w3"):
        fleet.deploy(f"s-{name}", to=name)
    fleet.connection.execute(
        "UPDATE container_workers SET last_heartbeat_at = now() - interval '1 hour' WHERE name IN ('w1', 'w2', 'w3')"
    )
    for name in ("w1", "w2", "w3"):
        fleet.engine.lose(fleet.nodes[name])
    look(fleet.context)
    fleet.settle()
    held = fleet.migrations()
    assert {each.state.value for each in held.values()} == {"held"}
    assert held["s-w1"].reason == "3 of 5 workers failed at once: see `skyctl migrations resume`"
    migrations.approve(fleet.context, held["s-w1"].id, TESTS)
    fleet.settle()
    assert states(fleet) == {"s-w1": "completed", "s-w2": "held", "s-w3": "held"}
    assert len(migrations.resume(fleet.context, TESTS)[1]) == 1
    fleet.settle()
    assert set(states(fleet).values()) == {"completed"}


def test_without_room_it_waits_names_what_is_missing_and_takes_the_first_worker_that_has_it(fleet: Fleet) -> None:
    fleet.deploy("fill2", to="w2", memory=3900)
    fleet.deploy("fill3", to="w3", memory=3500)
    fleet.deploy("a", to="w1", memory=1024)
    fleet.fail("w1")
    fleet.settle()
    assert states(fleet) == {"a": "queued"}
    reason = fleet.migrations()["a"].reason
    assert "w3" in reason
    assert "428 MiB of memory" in reason
    fleet.add("w4")
    fleet.settle()
    assert states(fleet) == {"a": "completed"}
    assert fleet.where()["a"] == "w4"


def test_a_drain_empties_several_workers_and_no_container_moves_twice(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    fleet.deploy("c", to="w2")
    drains.drain(fleet.context, [fleet.ids["w1"], fleet.ids["w2"]], TESTS, DrainOptions("new disks"))
    look(fleet.context)
    fleet.settle()
    assert fleet.where() == {"a": "w3", "b": "w3", "c": "w3"}
    assert len(migrations.list_migrations(fleet.context).migrations) == 3
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "pause"
    first, second = drains.progress(fleet.context, [fleet.ids["w1"], fleet.ids["w2"]])
    assert (first.moved, second.moved) == (2, 1)
    assert first.is_over
    assert second.is_over
    assert workers.remove(fleet.context, fleet.ids["w1"], TESTS)[1] == ""
    assert fleet.nodes["w1"] not in fleet.engine.nodes


def test_undrain_cancels_what_has_not_started(fleet: Fleet) -> None:
    fleet.deploy("a", "b", "c", to="w1")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(max_parallel=1))
    fleet.step()
    assert sorted(states(fleet).values()) == ["queued", "queued", "verifying"]
    drains.undrain(fleet.context, fleet.ids["w1"], TESTS)
    fleet.settle()
    assert sorted(states(fleet).values()) == ["cancelled", "cancelled", "completed"]
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "active"


def test_a_plan_changes_nothing(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    fleet.deploy("big", to="w1", cores=1, memory=2000)
    fleet.deploy("full2", to="w2", memory=3000)
    fleet.deploy("full3", to="w3", memory=3000)
    plan = drain_plans.plan(fleet.context, [fleet.ids["w1"]])
    assert [(each.service_name, each.source, each.target is None) for each in plan] == [
        ("a", "w1", False),
        ("b", "w1", False),
        ("big", "w1", True),
    ]
    assert "memory" in plan[2].reason
    assert states(fleet) == {}


def test_a_container_that_never_gets_healthy_stays_where_it_was(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.unhealthy = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    for _ in range(100):
        fleet.step()
        assert "w1" in fleet.running()["a"]
        pass_time(fleet, seconds=30)
        fleet.beat()
    assert states(fleet) == {"a": "failed"}
    found = fleet.migrations()["a"]
    assert found.attempts == 3
    assert found.finished_at
    assert UNHEALTHY in found.reason
    assert fleet.where() == {"a": "w1"}
    [progress] = drains.progress(fleet.context, [fleet.ids["w1"]])
    assert progress.is_over
    assert progress.left == ["a"]
    assert told(fleet, "migration_failed")
    assert "1 container left" in told(fleet, "drain_incomplete")[0]
    fleet.engine.unhealthy.clear()
    migrations.retry(fleet.context, found.id, TESTS)
    fleet.settle()
    assert states(fleet) == {"a": "completed"}


def test_the_deadline_of_a_drain_leaves_what_is_left_running(fleet: Fleet) -> None:
    fleet.deploy("a", "b", to="w1")
    fleet.engine.unhealthy = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=60), max_parallel=1))
    fleet.step()
    fleet.step()
    pass_time(fleet, seconds=61)
    fleet.beat()
    fleet.settle()
    assert sorted(states(fleet).values()) == ["cancelled", "failed"]
    assert fleet.running() == {"a": ["w1"], "b": ["w1"]}
    [progress] = drains.progress(fleet.context, [fleet.ids["w1"]])
    assert progress.is_over
    assert progress.left == ["a", "b"]


def test_force_stops_what_is_left_at_the_deadline(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.unhealthy = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=60), force=True))
    fleet.step()
    pass_time(fleet, seconds=61)
    fleet.beat()
    fleet.settle()
    assert fleet.running() == {"a": []}
    [progress] = drains.progress(fleet.context, [fleet.ids["w1"]])
    assert progress.is_over
    assert not progress.left
    assert fleet.services()["a"].status == "stopped"


def test_cancelling_one_under_way_rolls_it_back(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.unhealthy = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.step()
    fleet.step()
    migrations.cancel(fleet.context, fleet.migrations()["a"].id, TESTS)
    fleet.settle()
    assert states(fleet) == {"a": "cancelled"}
    assert fleet.running() == {"a": ["w1"]}


def test_an_engine_that_is_away_is_waited_for(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.fail("w1")
    fleet.engine.unavailable = "away"
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            fleet.step()
    fleet.engine.unavailable = ""
    fleet.settle()
    assert states(fleet) == {"a": "completed"}


def test_a_service_that_somebody_moved_by_hand_is_followed(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    current = fleet.services()["a"].current
    assert current
    assert current.swarm_service_id
    version = fleet.engine.observe().services[current.swarm_service_id].version
    fleet.engine.move(current.swarm_service_id, version, fleet.nodes["w3"], {})
    fleet.engine.settle()
    assert [event.kind for event in fleet.settle()] == ["service_moved_by_hand"]
    assert fleet.where() == {"a": "w3"}


def away(*_: object) -> NoReturn:
    raise EngineUnavailable("the engine is away")


def test_a_migration_gives_way_to_somebody_who_pins_the_service_elsewhere(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.add("w4")
    fleet.deploy("a", to="w1")
    current = fleet.services()["a"].current
    assert current
    assert current.swarm_service_id
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    with monkeypatch.context() as patch:
        patch.setattr(fleet.engine, "move", away)
        with pytest.raises(EngineUnavailable):
            fleet.step()
    assert states(fleet) == {"a": "starting"}
    other = next(name for name in ("w2", "w3", "w4") if name != fleet.migrations()["a"].target_worker_name)
    version = fleet.engine.observe().services[current.swarm_service_id].version
    fleet.engine.move(current.swarm_service_id, version, fleet.nodes[other], {})
    fleet.settle()
    assert states(fleet) == {"a": "cancelled"}
    assert fleet.where() == {"a": other}


def test_off_a_lost_worker_the_next_attempt_goes_to_the_next_worker(fleet: Fleet) -> None:
    """There is nothing to go back to: it is pinned where the attempt before it failed."""
    fleet.deploy("a", to="w1")
    fleet.engine.unhealthy |= {(fleet.nodes["w2"], "app:1")}
    fleet.engine.set_availability(fleet.nodes["w3"], "pause")
    fleet.fail("w1")
    for _ in range(60):
        fleet.step()
        fleet.context.db.ahead += timedelta(seconds=30)
        fleet.beat(*[name for name in fleet.ids if name != "w1"])
        if fleet.migrations().get("a") and fleet.migrations()["a"].attempts >= 1:
            fleet.engine.set_availability(fleet.nodes["w3"], "active")
    assert fleet.migrations()["a"].state == "completed"
    assert fleet.where() == {"a": "w3"}


def test_a_worker_with_containers_is_not_removed(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    with pytest.raises(Refused, match="w1 still has 1 container"):
        workers.remove(fleet.context, fleet.ids["w1"], TESTS)


def test_a_service_whose_image_is_missing_fails_with_the_engines_words(fleet: Fleet) -> None:
    fleet.engine.absent = {("*", "app:1")}
    fleet.deploy("a", to="w1")
    found = fleet.services()["a"]
    assert found.status == "failed"
    assert found.current
    assert found.current.log == "No such image: app:1"


def test_an_interrupted_deployment_is_told_to_the_engine_later(fleet: Fleet) -> None:
    fleet.engine.refuses = ""
    fleet.deploy("a", to="w1")
    fleet.connection.execute("UPDATE container_deployments SET swarm_service_id = NULL, status = 'deploying'")
    fleet.settle()
    assert fleet.services()["a"].status == "running"
    fleet.connection.execute("UPDATE container_deployments SET swarm_service_id = NULL, status = 'deploying'")
    pass_time(fleet, seconds=31)
    fleet.settle()
    assert fleet.services()["a"].status == "running"


def test_a_removed_service_takes_its_migration_with_it(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.step()
    services.remove(fleet.context, fleet.services()["a"].id, TESTS)
    fleet.settle()
    assert fleet.services() == {}
    assert fleet.migrations()["a"].state is MigrationState.CANCELLED


def test_a_region_that_is_asked_for_is_kept_to(fleet: Fleet) -> None:
    workers.label(fleet.context, fleet.ids["w1"], TESTS, {"region": "eu", "pool": "gpu"})
    fleet.deploy("a", region="eu")
    assert fleet.where() == {"a": "w1"}
    fleet.fail("w1")
    fleet.settle()
    assert states(fleet) == {"a": "queued"}
    assert "region" in fleet.migrations()["a"].reason
    workers.label(fleet.context, fleet.ids["w3"], TESTS, {"region": "eu"})
    fleet.settle()
    assert fleet.where() == {"a": "w3"}
    workers.label(fleet.context, fleet.ids["w1"], TESTS, {"region": ""})
    assert lookup.find_worker(fleet.context, "w1").metadata == {"pool": "gpu"}
