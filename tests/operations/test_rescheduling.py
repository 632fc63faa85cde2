"""What the swarm places itself it also moves itself after a failure: that is watched, recorded and told, and never
fought; where the node is up, it is moved as what we pin is."""

from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from random import Random

import psycopg
import pytest
import sqlalchemy as sa

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import Document, NodeTask, Observation
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.states import MigrationPolicy
from skyctl.domain.workloads import Migration, MigrationSettings, ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import drains, migrations, swarm_orders, swarm_services, workers
from skyctl.operations.monitor import migrations as monitor
from tests.conftest import TEMPLATE, make_context
from tests.operations.fleets import fleet_of
from tests.support.fake_placed import global_, replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user, look


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(database_url, connection, "w1", "w2", "w3") as fleet:
        add_user(connection)
        yield fleet


def told(fleet: Fleet, kind: str) -> list[str]:
    rows = fleet.connection.execute("SELECT reason FROM worker_events WHERE kind = %s ORDER BY seq", (kind,))
    return [reason for (reason,) in rows]


def alerted(fleet: Fleet, kind: str) -> list[str]:
    rows = fleet.connection.execute("SELECT title FROM worker_alerts WHERE kind = %s ORDER BY id", (kind,))
    return [title for (title,) in rows]


def moves(fleet: Fleet) -> list[tuple[str, str, str]]:
    """Each migration: its service, its state, its reason."""
    found = migrations.list_migrations(fleet.context).migrations
    return sorted((each.service_name, each.state.value, each.reason) for each in found)


def the_only(fleet: Fleet) -> Migration:
    [found] = migrations.list_migrations(fleet.context).migrations
    return found


def keeping(name: str) -> Document:
    document = replicated(name)
    document["TaskTemplate"]["ContainerSpec"]["Mounts"] = [{"Type": "volume", "Source": "pg", "Target": "/data"}]
    return document


def pinned(fleet: Fleet, worker: str) -> Document:
    """Values that keep a service off all nodes but one, which is no pin."""
    others = [f"node.id!={node}" for name, node in fleet.nodes.items() if name != worker]
    return {"TaskTemplate": {**replicated("x")["TaskTemplate"], "Placement": {"Constraints": others}}}


def only_on(fleet: Fleet, name: str, worker: str = "w1") -> str:
    return fleet.engine.place({**replicated(name), **pinned(fleet, worker)})


def silence(fleet: Fleet, name: str) -> None:
    """The agent falls silent, and the node of the swarm goes on."""
    heard = "UPDATE container_workers SET last_heartbeat_at = now() - interval '1 hour' WHERE id = %s"
    fleet.connection.execute(heard, (fleet.ids[name],))
    look(fleet.context)


def test_what_the_swarm_starts_elsewhere_is_in_the_same_record_and_nothing_is_ordered(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=6))
    fleet.engine.place(global_("logs"))
    fleet.deploy("ours", to="w1")
    fleet.engine.orders.clear()
    fleet.fail("w1")
    fleet.settle()
    assert moves(fleet) == [("ours", "completed", ""), ("web", "completed", "")]
    assert {each.cause.value for each in fleet.migrations().values()} == {"worker_failed"}
    assert web not in {subject for _, subject in fleet.engine.orders}, "nothing is ordered but of what we pinned"
    assert "web: its node is down: the swarm starts it elsewhere" in told(fleet, "migration_started")
    [reason] = [each for each in told(fleet, "migration_completed") if each.startswith("web")]
    target = fleet.migrations()["web"].target_worker_name
    assert target in ("w2", "w3")
    assert reason == f"web: it runs on {target}; what was there stops when its worker returns"
    assert told(fleet, "migrations_finished") == ["2 completed"]
    assert alerted(fleet, "migration_summary") == ["Containers of w1, which failed: 2 completed"]


def test_the_old_containers_are_watched_until_they_have_stopped(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    fleet.fail("w1")
    fleet.settle()
    assert the_only(fleet).source_stopped_at is None, "they may run on, where nobody sees it"
    fleet.heal("w1")
    fleet.engine.place(replicated("api", replicas=3))
    fleet.settle()
    assert the_only(fleet).source_stopped_at
    assert told(fleet, "ghost_stopped") == ["web: w1 is back, its old container has stopped"]


def test_what_runs_there_anew_is_no_old_container(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=3))
    fleet.fail("w1")
    fleet.settle()
    fleet.engine.heal(fleet.nodes["w1"])
    fleet.engine.settle()
    fleet.engine.change(web, Mode={"Replicated": {"Replicas": 6}})
    fleet.engine.settle()
    assert "w1" in fleet.running()["web"]
    fleet.heal("w1")
    fleet.settle()
    assert the_only(fleet).source_stopped_at


def test_once_for_each_failure_whoever_leads_and_however_often_it_is_looked(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    fleet.fail("w1")
    for _ in range(3):
        fleet.settle()  # each step is of a term of its own
    assert moves(fleet) == [("web", "completed", "")]
    fleet.beat("w1")  # the agent is heard, the node is not
    look(fleet.context)
    fleet.settle()
    fleet.fail("w1")
    fleet.settle()
    assert moves(fleet) == [("web", "completed", "")], "the swarm has moved nothing since"
    fleet.heal("w1")
    fleet.settle()
    web = fleet.engine.observe().services
    fleet.engine.change(next(iter(web)), Mode={"Replicated": {"Replicas": 4}})
    fleet.settle()
    assert "w1" in fleet.running()["web"]
    fleet.fail("w1")
    fleet.settle()
    assert moves(fleet) == 2 * [("web", "completed", "")]
    assert told(fleet, "migrations_finished") == 2 * ["1 completed"]


def test_where_no_node_takes_it_it_fails_by_the_engines_words_and_blocks_nothing(
    database_url: str, fleet: Fleet
) -> None:
    fleet.context = make_context(
        database_url, engine=fleet.engine, migrations=MigrationSettings(at_once=1, timeout=timedelta(minutes=1))
    )
    for name in ("here", "there"):
        only_on(fleet, name)
    fleet.deploy("ours", to="w1")
    fleet.fail("w1")
    fleet.settle()
    assert fleet.where()["ours"] in ("w2", "w3"), "though one may be moved at once, and two wait"
    assert [each[:2] for each in moves(fleet)] == [
        ("here", "verifying"),
        ("ours", "completed"),
        ("there", "verifying"),
    ]
    [(_, _, why)] = [each for each in moves(fleet) if each[0] == "here"]
    assert why.startswith("no suitable node")
    fleet.context.db.ahead += timedelta(minutes=2)
    fleet.beat("w2", "w3")
    fleet.settle()
    failed = "not running elsewhere at its deadline: no suitable node (scheduling constraints not satisfied on 3 nodes)"
    assert [each for each in moves(fleet) if each[0] != "ours"] == [
        ("here", "failed", failed),
        ("there", "failed", failed),
    ]
    assert told(fleet, "migrations_finished") == ["1 completed, 2 failed"]
    before = moves(fleet)
    fleet.context.db.ahead += timedelta(minutes=20)
    fleet.beat("w2", "w3")
    fleet.settle()
    assert moves(fleet) == before, "it is not tried again: the swarm goes on by itself"
    fleet.context.db.close()


def test_what_runs_there_again_is_cancelled(fleet: Fleet) -> None:
    only_on(fleet, "web")
    fleet.fail("w1")
    fleet.settle()
    fleet.heal("w1")
    fleet.settle()
    assert fleet.running() == {"web": ["w1"]}
    assert moves(fleet) == [("web", "cancelled", "it runs there again: its node is back")]
    assert told(fleet, "migrations_finished") == ["1 cancelled"]
    assert alerted(fleet, "migration_summary") == []


def test_what_is_lost_with_the_node_is_said(fleet: Fleet) -> None:
    fleet.engine.place(keeping("db"))
    assert fleet.running() == {"db": ["w1"]}
    fleet.fail("w1")
    fleet.settle()
    left = "what it keeps on its node stays behind: pg"
    assert moves(fleet) == [("db", "completed", left)]
    assert told(fleet, "migration_started") == [f"db: its node is down: the swarm starts it elsewhere; {left}"]
    assert told(fleet, "migration_completed")[0].endswith(left)


def test_what_is_removed_or_to_run_no_more_is_cancelled(fleet: Fleet) -> None:
    gone, none = only_on(fleet, "gone"), only_on(fleet, "none")
    fleet.fail("w1")
    fleet.step()
    fleet.engine.remove(gone)
    fleet.engine.change(none, Mode={"Replicated": {"Replicas": 0}})
    fleet.settle()
    assert moves(fleet) == [
        ("gone", "cancelled", "the service was removed"),
        ("none", "cancelled", "none of it is to run any more"),
    ]


def test_while_the_swarm_moves_it_by_itself_its_owner_may_order_what_he_wants(fleet: Fleet) -> None:
    """That may be what ends the trouble: nothing of ours is in it that an order could meet."""
    web = only_on(fleet, "web")
    fleet.fail("w1")
    fleet.settle()
    assert the_only(fleet).state == "verifying"
    swarm_orders.restart(fleet.context, TESTS, swarm_services.find(fleet.context, "web"))
    assert swarm_orders.scale(fleet.context, TESTS, swarm_services.find(fleet.context, "web"), 0)
    fleet.settle()
    assert fleet.engine.observe([web]).services[web].replicas == 0
    assert moves(fleet) == [("web", "cancelled", "none of it is to run any more")]


def test_somebody_may_cancel_it_and_ask_for_it_again(fleet: Fleet) -> None:
    web = only_on(fleet, "web")
    fleet.fail("w1")
    fleet.settle()
    migrations.cancel(fleet.context, the_only(fleet).id, TESTS)
    fleet.settle()
    assert moves(fleet) == [("web", "cancelled", "cancelled by tests")]
    fleet.heal("w1")
    fleet.settle()
    fleet.fail("w1")
    fleet.settle()
    fleet.context.db.ahead += timedelta(hours=1)
    fleet.beat("w2", "w3")
    fleet.settle()
    [failed] = [each for each in migrations.list_migrations(fleet.context).migrations if each.state == "failed"]
    migrations.retry(fleet.context, failed.id, TESTS)
    fleet.engine.orders.clear()
    fleet.engine.change(web, **pinned(fleet, "w2"))
    fleet.settle()
    assert [each[1] for each in moves(fleet)] == ["cancelled", "completed"]
    assert fleet.engine.orders == [], "it was left to the swarm again"


def test_a_pause_and_a_mass_failure_keep_the_swarm_from_nothing(fleet: Fleet) -> None:
    """It is written down all the same: to say that it is held would be untrue."""
    migrations.pause(fleet.context, TESTS, None, None)
    fleet.engine.place(replicated("web", replicas=3))
    fleet.deploy("ours", to="w1")
    fleet.fail("w1")
    fleet.settle()
    assert [each[:2] for each in moves(fleet)] == [("ours", "queued"), ("web", "completed")]


def test_of_a_node_that_is_up_it_is_moved_as_what_we_pin(fleet: Fleet) -> None:
    """The swarm leaves it there, and a user expects of all containers the same."""
    fleet.engine.place(keeping("db"))
    web = fleet.engine.place(replicated("web", replicas=6))
    fleet.engine.place(global_("logs"))
    assert [name for name, where in sorted(fleet.running().items()) if "w1" in where] == ["db", "logs", "web"]
    silence(fleet, "w1")
    fleet.settle()
    assert "w1" not in fleet.running()["web"]
    assert "w1" in fleet.running()["logs"]
    found = {each[0]: each[1:] for each in moves(fleet)}
    assert found["web"] == ("completed", "")
    assert found["db"] == ("failed", "it stays: it keeps data on its node: pg")
    document = fleet.engine.read(web)
    assert document
    assert document.spec == replicated("web", replicas=6), "nothing of ours is left in it"


def test_it_does_not_move_to_another_failed_worker(fleet: Fleet) -> None:
    """Though the swarm, which hears of no agent, would start it there."""
    web = fleet.engine.place(replicated("web", replicas=1))
    [[source]] = fleet.running().values()
    [one, other] = [name for name in fleet.ids if name != source][:2]
    for name in (one, source):
        silence(fleet, name)
    fleet.settle()
    assert fleet.running()["web"] == [other]
    assert moves(fleet) == [("web", "completed", "")]
    document = fleet.engine.read(web)
    assert document
    assert document.spec == replicated("web", replicas=1), "nothing of ours is left in it"


def test_what_the_swarm_puts_there_again_is_not_fought(fleet: Fleet) -> None:
    web = fleet.engine.place(replicated("web", replicas=3))
    silence(fleet, "w1")
    fleet.settle()
    fleet.engine.change(web, Mode={"Replicated": {"Replicas": 6}})
    fleet.settle()
    assert "w1" in fleet.running()["web"]
    assert moves(fleet) == [("web", "completed", "")]


def test_one_that_waited_is_left_to_the_swarm_once_its_node_is_down(fleet: Fleet) -> None:
    migrations.pause(fleet.context, TESTS, None, None)
    fleet.engine.place(replicated("web", replicas=3))
    silence(fleet, "w1")
    fleet.settle()
    assert moves(fleet)[0][:2] == ("web", "queued")
    fleet.engine.orders.clear()
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.settle()
    assert moves(fleet) == [("web", "completed", "")]
    assert fleet.engine.orders == []


def test_one_that_stays_is_written_down_anew_once_the_swarm_has_lost_its_node(fleet: Fleet) -> None:
    fleet.engine.place(keeping("db"))
    silence(fleet, "w1")
    fleet.settle()
    assert moves(fleet) == [("db", "failed", "it stays: it keeps data on its node: pg")]
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.settle()
    assert [each[1] for each in moves(fleet)] == ["completed", "failed"]


def several(fleet: Fleet, replicas: int = 3) -> None:
    spec = ServiceSpec("web", "app:1", Capacity(1, 512, 1), replicas=replicas)
    deploy_admin.deploy(fleet.context, TESTS, fleet.organization, spec)
    fleet.engine.settle()
    fleet.settle()


@pytest.mark.parametrize(
    ("policy", "state"), [(MigrationPolicy.NONE, None), (MigrationPolicy.MANUAL, "awaiting_approval")]
)
def test_its_organizations_policy_holds_where_the_node_is_up(
    fleet: Fleet, policy: MigrationPolicy, state: str | None
) -> None:
    several(fleet)
    migrations.set_policy(fleet.context, fleet.organization, policy, TESTS)
    silence(fleet, "w1")
    fleet.settle()
    assert [each[1] for each in moves(fleet)] == ([state] if state else [])
    assert len(told(fleet, "approval_required")) == bool(state)
    if state:
        migrations.approve(fleet.context, the_only(fleet).id, TESTS)
        fleet.settle()
        assert moves(fleet)[0][1] == "completed"
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.settle()
    assert [each[1] for each in moves(fleet)] == ["completed"], "once its node is down nobody asks"


def test_a_mass_failure_holds_what_the_swarm_leaves_there(fleet: Fleet) -> None:
    fleet.add("w4", "w5", "w6")
    fleet.engine.place(replicated("web", replicas=6))
    lost = ("w1", "w2", "w3", "w4")
    fleet.connection.execute(
        "UPDATE container_workers SET last_heartbeat_at = now() - interval '1 hour' WHERE name = ANY (%s)",
        (list(lost),),
    )
    look(fleet.context)
    fleet.settle()
    assert {each[1] for each in moves(fleet)} == {"held"}
    assert len(moves(fleet)) == 4, "one for each worker"
    for name in lost[:2]:
        fleet.engine.lose(fleet.nodes[name])
    fleet.settle()
    assert [each[1] for each in moves(fleet)] == ["completed", "completed", "held", "held"]
    migrations.resume(fleet.context, TESTS)
    fleet.settle()
    assert {each[1] for each in moves(fleet)} == {"completed"}
    assert set(fleet.running()["web"]) == {"w5", "w6"} | set(lost[:2]), "orphans run on there"


def test_a_worker_that_is_back_cancels_what_waited(fleet: Fleet) -> None:
    migrations.pause(fleet.context, TESTS, None, None)
    fleet.engine.place(replicated("web", replicas=3))
    silence(fleet, "w1")
    fleet.settle()
    fleet.beat("w1")
    look(fleet.context)
    fleet.settle()
    assert moves(fleet) == [("web", "cancelled", "the worker is back")]


def test_exhaustion_moves_neither_what_we_pin_nor_what_the_swarm_places(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    fleet.deploy("ours", to="w1")
    fleet.connection.execute(
        "UPDATE container_workers SET current_load = current_load || '{\"diskPercent\": 99}' WHERE name = 'w1'"
    )
    look(fleet.context)
    fleet.settle()
    assert fleet.connection.execute("SELECT status FROM container_workers WHERE name = 'w1'").fetchone() == (
        "unhealthy",
    )
    assert moves(fleet) == []


def test_what_was_stopped_on_purpose_is_no_failure(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    workers.note_stopped(fleet.context, fleet.ids["w1"], TESTS)
    fleet.engine.lose(fleet.nodes["w1"])
    look(fleet.context)
    fleet.settle()
    assert moves(fleet) == []


def test_a_drain_of_a_worker_that_dies_ends_and_writes_nothing_down_twice(fleet: Fleet) -> None:
    migrations.pause(fleet.context, TESTS, None, None)
    fleet.engine.place(replicated("web", replicas=3))
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(minutes=5)))
    fleet.settle()
    assert moves(fleet)[0][:2] == ("web", "queued")
    fleet.fail("w1")
    fleet.settle()
    migrations.resume(fleet.context, TESTS)
    fleet.settle()
    assert [each[:2] for each in moves(fleet)] == [("web", "completed")]
    [found] = drains.progress(fleet.context, [fleet.ids["w1"]])
    assert found.is_over


def test_the_engine_is_asked_of_a_lost_node_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    asked: list[str] = []
    original = fleet.engine.tasks_on

    def noted(node_ids: Collection[str]) -> list[NodeTask]:
        asked.extend(node_ids)
        return original(node_ids)

    monkeypatch.setattr(fleet.engine, "tasks_on", noted)
    fleet.step()
    assert asked == []
    fleet.fail("w1")
    fleet.settle()
    fleet.settle()
    assert asked == [fleet.nodes["w1"]]
    silence(fleet, "w2")
    fleet.settle()
    fleet.settle()
    assert asked == [fleet.nodes["w1"], fleet.nodes["w2"]]


def test_an_engine_that_is_away_is_asked_once_it_answers(fleet: Fleet) -> None:
    fleet.engine.place(replicated("web", replicas=3))
    fleet.fail("w1")
    fleet.engine.unavailable = "away"
    with pytest.raises(EngineUnavailable):
        monitor.reconcile_migrations(fleet.term())
    assert moves(fleet) == []
    fleet.engine.unavailable = ""
    fleet.engine.settle()
    fleet.settle()
    assert moves(fleet) == [("web", "completed", "")]


@pytest.mark.parametrize("up", [False, True])
def test_a_monitor_that_dies_at_any_moment_writes_nothing_down_twice(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *, up: bool
) -> None:
    fleet.engine.place(replicated("web", replicas=6))
    fleet.engine.place(keeping("db"))
    fleet.engine.place(replicated("api", replicas=3))
    (silence if up else Fleet.fail)(fleet, "w1")
    original, drawn = fleet.engine.observe, Random(1)

    def observe_and_die(service_ids: list[str] | None = None) -> Observation:
        found = original(service_ids)
        if drawn.random() < 0.15:
            raise RuntimeError
        return found

    monkeypatch.setattr(fleet.engine, "observe", observe_and_die)
    for _ in range(60):
        try:
            fleet.step()
        except RuntimeError:
            continue
    names = [each[0] for each in moves(fleet)]
    assert sorted(set(names)) == names
    assert {each[1] for each in moves(fleet) if each[0] != "db"} == {"completed"}
    assert told(fleet, "migrations_finished") != []


def test_what_a_node_got_between_two_looks_is_recorded_when_it_is_lost_again(fleet: Fleet) -> None:
    """Nobody has seen the node up; its worker was heard, and failed anew. What it had before is not told twice."""
    fleet.engine.place(replicated("web", replicas=3))
    fleet.fail("w1")
    fleet.settle()
    fleet.engine.heal(fleet.nodes["w1"])
    fleet.engine.place(replicated("api", replicas=6))
    fleet.engine.settle()
    assert "w1" in fleet.running()["api"]
    fleet.beat("w1")
    look(fleet.context)
    fleet.fail("w1")
    fleet.settle()
    assert moves(fleet) == [("api", "completed", ""), ("web", "completed", "")]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements of this process, as they are sent."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_a_failure_takes_as_many_statements_however_many_services_it_moves(
    make_database: Callable[..., str], statements: list[str]
) -> None:
    """Those that begin, those that complete, and those whose old containers have stopped."""
    counts = {}
    for number in (5, 60):
        url = make_database(TEMPLATE)
        with psycopg.connect(url, autocommit=True) as connection, fleet_of(url, connection, "w1", "w2", "w3") as fleet:
            for each in range(number):
                fleet.engine.place(replicated(f"web-{each}", replicas=3))
            statements.clear()
            fleet.fail("w1")
            fleet.settle()
            fleet.heal("w1")
            fleet.settle()
            counts[number] = len(statements)
            assert {state for _, state, _ in moves(fleet)} == {"completed"}
            started = told(fleet, "migration_started")
            assert (
                len(started) == len(told(fleet, "ghost_stopped")) == len(told(fleet, "migration_completed")) == number
            )
    assert counts[60] <= counts[5] + 5, counts
