"""A worker that beats is not healthy without its engine: by its agent's word, or by the swarm's."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import psycopg
import pytest

from skyctl.domain.cluster import Event, Heartbeat, Load
from skyctl.domain.engine import SwarmJoin
from skyctl.domain.states import MigrationPolicy
from skyctl.operations.admin import migrations, workers
from skyctl.operations.agents import heartbeats, invitations
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from tests.conftest import Cli, Process, make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import LOAD, PATIENCE_SECONDS, REGISTRATION, TESTS, add_user, add_worker, bearer, look

pytestmark = pytest.mark.in_process

WITHIN, BEYOND = timedelta(seconds=30), timedelta(seconds=31)


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Four empty workers, and an administrator."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine)
    fleet = Fleet(context, connection, engine)
    fleet.add("w1", "w2", "w3", "w4")
    add_user(connection)
    yield fleet
    context.db.close()


def say_away(fleet: Fleet, *names: str, away: bool = True) -> None:
    """What heartbeats do that say so."""
    fleet.beat()
    at = "last_heartbeat_at" if away else "NULL"
    fleet.connection.execute(
        f"UPDATE container_workers SET engine_away_seen_at = {at}, "
        f"engine_away_since = CASE WHEN {away} THEN coalesce(engine_away_since, last_heartbeat_at) END "
        "WHERE name = ANY (%s)",
        (list(names),),
    )


def pass_time(fleet: Fleet, time: timedelta) -> None:
    """Let the database's clock go on, and every worker beat, as before."""
    fleet.context.db.ahead += time
    rows = fleet.connection.execute("SELECT name FROM container_workers WHERE engine_away_since IS NOT NULL")
    say_away(fleet, *(name for (name,) in rows.fetchall()))


def alerts(fleet: Fleet) -> list[tuple[str, str]]:
    rows = fleet.connection.execute("SELECT kind, message FROM worker_alerts ORDER BY id")
    return [(kind, message) for kind, message in rows]


def register(api: httpx.Client, token: str) -> httpx.Response:
    return api.post("/api/workers/register", headers=bearer(token), json=REGISTRATION)


def conclude(fleet: Fleet) -> list[Event]:
    """A pass of the monitor, with its alerts; its events."""
    events = list(look(fleet.context).events)
    fleet.step()
    return events


def status(fleet: Fleet, name: str) -> str:
    return workers.get(fleet.context, fleet.ids[name]).status.value


def test_what_runs_on_a_worker_without_its_engine_is_moved_and_stays_one_when_it_is_back(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    say_away(fleet, "w1")
    pass_time(fleet, WITHIN)
    look(fleet.context)
    fleet.settle()
    assert (status(fleet, "w1"), fleet.where()["a"]) == ("active", "w1"), "within the grace time"

    fleet.engine.lose(fleet.nodes["w1"])
    pass_time(fleet, BEYOND)
    look(fleet.context)
    fleet.settle()
    assert status(fleet, "w1") == "unhealthy"
    [elsewhere] = set(fleet.where().values())
    assert elsewhere != "w1"
    assert fleet.migrations()["a"].state == "completed"
    kind, message = alerts(fleet)[0]
    assert kind == "worker_unhealthy"
    assert message.startswith("Worker w1 is unhealthy: its engine does not answer, for 6")

    fleet.engine.heal(fleet.nodes["w1"])
    say_away(fleet, "w1", away=False)
    fleet.settle()
    look(fleet.context)
    assert [event.kind for event in fleet.settle()] == ["ghost_stopped"]
    assert status(fleet, "w1") == "active"
    assert fleet.running() == {"a": [elsewhere]}
    assert alerts(fleet)[-1][0] == "worker_recovered"


def test_a_node_that_the_swarm_calls_down_for_longer_than_the_grace_time_has_failed(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.step()
    pass_time(fleet, WITHIN)
    fleet.step()
    look(fleet.context)
    assert status(fleet, "w1") == "active", "within the grace time"
    pass_time(fleet, BEYOND)
    fleet.step()
    look(fleet.context)
    assert status(fleet, "w1") == "unhealthy"
    fleet.settle()
    assert fleet.where()["a"] != "w1"
    [told, *_] = [message for kind, message in alerts(fleet) if kind == "worker_unhealthy"]
    assert "the swarm says that its node is down, for 6" in told
    fleet.engine.heal(fleet.nodes["w1"])
    fleet.step()
    look(fleet.context)
    assert status(fleet, "w1") == "active"


def test_while_the_swarm_does_not_answer_us_nobodys_node_is_down_any_longer(fleet: Fleet) -> None:
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.step()
    fleet.engine.unavailable = "connection refused"
    pass_time(fleet, timedelta(hours=1))
    fleet.step()
    look(fleet.context)
    assert {status(fleet, name) for name in fleet.ids} == {"active"}
    fleet.engine.unavailable = ""
    fleet.engine.heal(fleet.nodes["w1"])
    fleet.step()
    look(fleet.context)
    assert {status(fleet, name) for name in fleet.ids} == {"active"}


def test_of_a_silent_worker_no_node_is_remembered_as_down_when_it_comes_back(fleet: Fleet) -> None:
    fleet.fail("w1")
    for _ in range(2):
        fleet.step()
        fleet.context.db.ahead += timedelta(minutes=1)
    fleet.heal("w1")
    assert status(fleet, "w1") == "active"


def test_many_engines_that_fail_at_once_are_a_mass_failure(fleet: Fleet) -> None:
    for name in ("w1", "w2", "w3"):
        fleet.deploy(f"s-{name}", to=name)
    say_away(fleet, "w1", "w2", "w3")
    pass_time(fleet, timedelta(seconds=61))
    look(fleet.context)
    fleet.settle()
    assert {each.state.value for each in fleet.migrations().values()} == {"held"}
    assert [kind for kind, _ in alerts(fleet)] == ["mass_failure"]
    say_away(fleet, "w1", "w2", away=False)
    assert {event.kind for event in look(fleet.context).events} == {"status_changed"}, "one is still without"
    say_away(fleet, "w3", away=False)
    assert look(fleet.context).events[-1].kind == "mass_recovery"
    fleet.settle()
    assert {each.state.value for each in fleet.migrations().values()} == {"cancelled"}


def test_an_engine_that_fails_after_exhaustion_is_told_at_once(fleet: Fleet) -> None:
    full = json.dumps({"diskPercent": 99})
    fleet.connection.execute("UPDATE container_workers SET current_load = %s WHERE name = 'w1'", (full,))
    conclude(fleet)
    say_away(fleet, "w1")
    pass_time(fleet, timedelta(seconds=61))
    [event] = conclude(fleet)
    assert (event.from_status, event.to_status) == ("unhealthy", "unhealthy")
    say_away(fleet, "w1", away=False)
    conclude(fleet)
    assert ["disk 99 %" in message for _, message in alerts(fleet)] == [True, False], "exhaustion was told just now"


def test_an_unhealthy_worker_that_is_drained_has_not_recovered(fleet: Fleet) -> None:
    say_away(fleet, "w1")
    pass_time(fleet, timedelta(seconds=61))
    conclude(fleet)
    fleet.connection.execute("UPDATE container_workers SET drain_requested_at = now() WHERE name = 'w1'")
    conclude(fleet)
    assert [kind for kind, _ in alerts(fleet)] == ["worker_unhealthy"]


def test_one_word_and_then_silence_is_silence(fleet: Fleet) -> None:
    """A beat of a daemon that restarts, and then none: the engine is not known to be away for as long."""
    fleet.deploy("a", to="w1")
    say_away(fleet, "w1")
    fleet.context.db.ahead += timedelta(seconds=100)
    fleet.beat("w2", "w3", "w4")
    conclude(fleet)
    assert (status(fleet, "w1"), fleet.where()["a"]) == ("active", "w1")


def test_a_look_long_ago_says_nothing_of_a_node(fleet: Fleet) -> None:
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.step()
    fleet.engine.unavailable = "connection refused"
    pass_time(fleet, timedelta(hours=1))
    fleet.step()
    fleet.engine.unavailable = ""
    fleet.step()
    conclude(fleet)
    assert status(fleet, "w1") == "active", "as after a change of the swarm's leader, which hears nobody yet"


def test_a_node_that_is_gone_from_the_swarm_is_down(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    del fleet.engine.nodes[fleet.nodes["w1"]]
    for _ in range(3):
        fleet.step()
        pass_time(fleet, WITHIN)
    fleet.step()
    conclude(fleet)
    assert status(fleet, "w1") == "unhealthy"


def test_members_of_a_mass_failure_that_fall_silent_stay_held(fleet: Fleet) -> None:
    for name in ("w1", "w2", "w3"):
        fleet.deploy(f"s-{name}", to=name)
    say_away(fleet, "w1", "w2", "w3")
    pass_time(fleet, timedelta(seconds=61))
    conclude(fleet)
    fleet.context.db.ahead += timedelta(seconds=121)
    fleet.beat("w4")
    conclude(fleet)
    fleet.settle()
    assert [status(fleet, name) for name in ("w1", "w2", "w3")] == ["offline"] * 3
    assert {each.state.value for each in fleet.migrations().values()} == {"held"}
    assert [kind for kind, _ in alerts(fleet)] == ["mass_failure"]


def test_an_engine_that_failed_before_keeps_no_mass_failure(fleet: Fleet) -> None:
    fleet.add("w5", "w6")
    say_away(fleet, "w6")
    pass_time(fleet, timedelta(hours=1))
    conclude(fleet)
    fleet.context.db.ahead += timedelta(seconds=121)
    fleet.beat("w4", "w5")
    say_again = "UPDATE container_workers SET last_heartbeat_at = now() + %s, engine_away_seen_at = now() + %s"
    ahead = fleet.context.db.ahead
    fleet.connection.execute(f"{say_again} WHERE name = 'w6'", (ahead, ahead))
    assert "mass_failure" in {event.kind for event in conclude(fleet)}
    fleet.beat("w1", "w2", "w3", "w4", "w5")
    assert "mass_recovery" in {event.kind for event in [*conclude(fleet), *conclude(fleet)]}
    assert status(fleet, "w6") == "unhealthy"


def test_a_mark_that_was_left_on_a_worker_whose_engine_is_there_moves_nothing(fleet: Fleet) -> None:
    """As an older monitor, or the panel, leaves it."""
    fleet.deploy("a", to="w1")
    fleet.connection.execute("UPDATE container_workers SET engine_failed_at = now()")
    fleet.settle()
    assert fleet.where()["a"] == "w1"
    assert conclude(fleet) == []
    assert workers.get(fleet.context, fleet.ids["w1"]).engine_failed_at is None


def test_an_overdue_drain_ends_in_a_failure_where_the_engine_is_away(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.connection.execute(
        "UPDATE container_workers SET drain_requested_at = now() - interval '1 h', "
        "drain_deadline_at = now() - interval '1 min', drain_finished_at = now(), status = 'draining' WHERE name = 'w1'"
    )
    fleet.engine.lose(fleet.nodes["w1"])
    say_away(fleet, "w1")
    pass_time(fleet, timedelta(seconds=61))
    [event] = conclude(fleet)
    assert (event.from_status, event.to_status) == ("draining", "draining")
    fleet.settle()
    assert fleet.where()["a"] != "w1"
    assert alerts(fleet)[0][0] == "worker_unhealthy"


def test_with_no_confirmed_node_left_none_is_down(fleet: Fleet) -> None:
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.step()
    fleet.connection.execute(
        "UPDATE container_workers SET swarm_node_id = NULL, swarm_node_confirmed = NULL, hostname = 'another-' || name"
    )
    fleet.step()
    assert workers.get(fleet.context, fleet.ids["w1"]).node_down_since is None


def test_policy_none_leaves_what_runs_there(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    migrations.set_policy(fleet.context, fleet.organization, MigrationPolicy.NONE, TESTS)
    say_away(fleet, "w1")
    pass_time(fleet, timedelta(seconds=61))
    look(fleet.context)
    fleet.settle()
    assert fleet.where()["a"] == "w1"


@pytest.mark.parametrize(("silent", "counted"), [(0, 0), (25.5, 25.5), (60, 60), (4000, 60)])
def test_an_engine_is_away_since_it_was_asked_and_no_first_word_is_enough(
    context: Context, connection: psycopg.Connection, silent: float, counted: float
) -> None:
    worker_id = add_worker(connection, token="t", status="active")

    def beat(seconds: float) -> tuple[float, str]:
        wanted = Heartbeat(str(worker_id), tokens.fingerprint("t"), Load(), seconds)
        assert asyncio.run(heartbeats.record(context, [wanted])) == [None]
        look(context)
        worker = workers.get(context, worker_id)
        assert worker.last_heartbeat_at
        assert worker.engine_away_since
        return (worker.last_heartbeat_at - worker.engine_away_since).total_seconds(), worker.status.value

    assert beat(silent) == (counted, "active")
    context.db.ahead += timedelta(seconds=30)
    away, status = beat(4000)
    assert away >= counted + 30
    assert status == ("unhealthy" if counted > 50 else "active")


@pytest.mark.parametrize("query", ["", "?past=the-fast-path"])
def test_the_word_of_an_agent_is_shown_and_its_last_count_is_not(
    serve: Callable[..., tuple[str, Process]], cli: Cli, context: Context, connection: psycopg.Connection, query: str
) -> None:
    one = invitations.invite(context, TESTS, "w1")
    beat = f"/api/workers/{one.worker_id}/heartbeat{query}"
    with httpx.Client(base_url=serve()[0], headers=bearer(one.token), timeout=PATIENCE_SECONDS) as api:
        assert api.post(beat, json=LOAD | {"containerCount": 7}).status_code == 200
        assert api.post(beat, json=LOAD | {"engineAnswers": "no"}).status_code == 400
        assert "engineAnswers" in api.post(beat, json=LOAD | {"engineAnswers": None}).json()["error"]["message"]
        for wrong in (-1, "3", True, None):
            silent = LOAD | {"engineAnswers": False, "engineSilentSeconds": wrong}
            assert "engineSilentSeconds" in api.post(beat, json=silent).json()["error"]["message"]
        long = LOAD | {"engineAnswers": False, "engineSilentSeconds": 1e9}
        assert api.post(beat, json=long).status_code == 200
        assert api.post(beat, json=LOAD | {"containerCount": 7}).status_code == 200
        cli("monitor", "--once")
        for _ in range(2):
            away = LOAD | {"containerCount": 7, "engineAnswers": False}
            assert api.post(beat, json=away).status_code == 200
        first = connection.execute("SELECT engine_away_since FROM container_workers").fetchone()
        assert first
        assert first[0] is not None
        assert "unknown" in cli("workers", "list").stdout
        assert json.loads(cli("workers", "show", "w1", "-o", "json").stdout)["currentLoad"]["containerCount"] is None
        why = cli("workers", "why", "w1").stdout
        assert "has not answered its agent since" in why
        assert "unhealthy, if its engine stays away" in why

        connection.execute(
            "UPDATE container_workers SET engine_away_since = last_heartbeat_at - interval '61 s', "
            """metadata = '{"engineTrouble": "Connection refused"}'"""
        )
        cli("monitor", "--once")
        why = cli("workers", "why", "w1").stdout
        assert "its engine does not answer, for 6" in why
        assert "Connection refused" in why
        assert "active, once its engine answers" in why
        assert "workers' engines" in cli("doctor").stdout

        connection.execute("UPDATE container_workers SET metadata = metadata || '{\"containerCountKnown\": false}'")
        assert register(api, one.token).status_code == 201, "an agent that says nothing of engines, as before"
        assert api.post(beat, json=LOAD).status_code == 200
        cli("monitor", "--once")
    shown = json.loads(cli("workers", "show", "w1", "-o", "json").stdout)
    assert (shown["status"], shown["engineAwaySince"], shown["engineFailedAt"]) == ("active", None, None)
    assert shown["currentLoad"]["containerCount"] == LOAD["containerCount"]
