"""A drained worker is empty where the engine shows nothing there and the agent counts nothing else, and not before."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions, DrainProgress, StillThere
from skyctl.domain.engine import EngineSpec
from skyctl.domain.errors import EngineUnavailable
from skyctl.operations.admin import drains
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_user, look


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Two workers, and a service of ours on the first."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        add_user(connection)
        fleet.deploy("ours", to="w1")
        yield fleet


def run(fleet: Fleet, name: str, worker: str = "w1") -> str:
    """A service of somebody else."""
    spec = EngineSpec(name, "net", name, fleet.nodes[worker], "app:1", Capacity(), {}, {})
    service_id = fleet.engine.deploy(spec, None)
    fleet.engine.settle()
    return service_id


def drain(fleet: Fleet, options: DrainOptions = DrainOptions()) -> DrainProgress:
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, options)
    fleet.settle()
    return progress(fleet)


def progress(fleet: Fleet) -> DrainProgress:
    [found] = drains.progress(fleet.context, [fleet.ids["w1"]])
    return found


def reasons(fleet: Fleet) -> list[str]:
    rows = fleet.connection.execute("SELECT reason FROM worker_events WHERE kind = 'drain_finished' ORDER BY seq")
    return [reason for (reason,) in rows]


def forget_ours(fleet: Fleet) -> None:
    """As if there were none of ours."""
    for service_id in fleet.engine.observe().services:
        if fleet.engine.observe().services[service_id].name.endswith("ours"):
            fleet.engine.remove(service_id)
    fleet.connection.execute("DELETE FROM container_services")


def count(fleet: Fleet, containers: int) -> None:
    """What the agent counts, and says with a heartbeat that comes some seconds later."""
    fleet.context.db.ahead += timedelta(seconds=5)
    fleet.connection.execute(
        "UPDATE container_workers SET current_load = jsonb_set(current_load, '{containerCount}', %s::text::jsonb) "
        "WHERE name = 'w1'",
        (containers,),
    )
    fleet.beat()


def test_the_panel_drains_by_a_status_and_no_more(fleet: Fleet) -> None:
    fleet.connection.execute("UPDATE container_workers SET status = 'draining' WHERE name = 'w1'")
    look(fleet.context)
    fleet.settle()
    assert fleet.where() == {"ours": "w2"}
    assert progress(fleet).is_empty
    assert reasons(fleet) == ["it is empty"]
    begun = fleet.connection.execute("SELECT actor FROM worker_events WHERE kind = 'drain_requested'").fetchall()
    assert begun == [("panel",)]
    drains.undrain(fleet.context, fleet.ids["w1"], TESTS)
    look(fleet.context)
    fleet.settle()
    assert progress(fleet).worker.status == "active"
    assert progress(fleet).worker.drain_requested_at is None


def test_what_others_deployed_there_is_named_and_is_not_called_empty(fleet: Fleet) -> None:
    others = [run(fleet, "web"), run(fleet, "db"), run(fleet, "elsewhere", "w2")]
    found = drain(fleet)
    assert fleet.where()["ours"] == "w2"
    assert (found.is_over, found.is_empty, found.left) == (True, False, [])
    assert (found.others, found.others_count) == (["db", "web"], 2)
    assert reasons(fleet) == ["2 containers left, still running"]
    [message] = fleet.connection.execute("SELECT message FROM worker_alerts WHERE kind = 'drain_incomplete'").fetchall()
    assert "db, web" in message[0]
    for service_id in others:
        fleet.engine.remove(service_id)
    assert drain(fleet).is_empty
    assert reasons(fleet)[1:] == ["it is empty"]


def test_what_is_waited_for_is_said_in_the_words_of_the_end(fleet: Fleet) -> None:
    def there() -> StillThere:
        return drains.still_there(fleet.context, fleet.ids["w1"])

    run(fleet, "web")
    count(fleet, 5)
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    not_counted = "its agent has not counted since the last container ended"
    assert there() == (["ours"], ["web"], not_counted)
    fleet.settle()
    assert progress(fleet).waits_for_others
    assert there() == ([], ["web"], not_counted)
    fleet.engine.unavailable = "it is away"
    assert there() == ([], [], "the engine does not answer: it is away")
    fleet.engine.unavailable = ""
    count(fleet, 3)
    assert there() == ([], ["web", "outside of Swarm (2)"], "")
    fleet.settle()
    over = progress(fleet)
    assert (over.is_over, over.others, over.waits_for_others) == (True, ["web", "outside of Swarm (2)"], False)
    fleet.engine.lose(fleet.nodes["w1"])
    assert there() == ([], [], "its node is down")


def test_a_container_that_is_stopping_is_waited_for(fleet: Fleet) -> None:
    service_id = run(fleet, "web")
    forget_ours(fleet)
    fleet.engine.cut(fleet.nodes["w1"])  # what is to end there does not yet
    fleet.engine.stop(service_id)
    assert not drain(fleet).is_over
    fleet.engine.heal(fleet.nodes["w1"])
    fleet.settle()
    assert progress(fleet).is_empty


def test_what_the_agent_counts_beside_the_swarms_is_named_once_it_has_counted_again(fleet: Fleet) -> None:
    count(fleet, 3)
    found = drain(fleet)
    assert not found.is_over
    count(fleet, 2)
    fleet.settle()
    assert (progress(fleet).is_over, progress(fleet).others) == (True, ["outside of Swarm (2)"])
    drains.undrain(fleet.context, fleet.ids["w1"], TESTS)
    fleet.settle()
    fleet.deploy("second", to="w1")
    assert not drain(fleet).is_over
    count(fleet, 0)
    fleet.settle()
    assert progress(fleet).is_empty


def test_a_count_from_before_the_last_container_ended_is_not_believed(fleet: Fleet) -> None:
    """Of others' containers, too, and of what was removed while it stopped."""
    service_id = run(fleet, "web")
    forget_ours(fleet)
    fleet.engine.cut(fleet.nodes["w1"])
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.engine.remove(service_id)
    count(fleet, 1)
    fleet.settle()
    assert not progress(fleet).is_over, "it is stopping"
    fleet.engine.heal(fleet.nodes["w1"])
    fleet.settle()
    assert not progress(fleet).is_over, "the agent's word is older than the end"
    count(fleet, 0)
    fleet.settle()
    assert progress(fleet).is_empty


def test_while_the_engine_says_nothing_no_drain_is_over_before_its_deadline_nor_empty_after(fleet: Fleet) -> None:
    forget_ours(fleet)
    run(fleet, "web")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=60)))
    fleet.engine.unavailable = "no answer"
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            fleet.step()
        assert not progress(fleet).is_over
    fleet.context.db.ahead += timedelta(seconds=121)  # the deadline, and two heartbeats
    with pytest.raises(EngineUnavailable):
        fleet.step()
    assert (progress(fleet).is_over, progress(fleet).is_empty) == (True, False)
    assert progress(fleet).unknown == "the engine does not answer: no answer"


def test_at_its_deadline_a_drain_ends_with_what_is_left_of_ours_and_of_others(fleet: Fleet) -> None:
    run(fleet, "web")
    fleet.connection.execute("UPDATE container_workers SET flapping_since = now() WHERE name = 'w2'")
    assert not drain(fleet, DrainOptions(deadline=timedelta(seconds=60))).is_over
    fleet.context.db.ahead += timedelta(seconds=61)
    fleet.settle()
    assert (progress(fleet).left, progress(fleet).others) == (["ours"], ["web"])
    assert reasons(fleet) == ["its deadline has passed: 2 containers left, still running"]


def test_a_forced_stop_leaves_nothing_that_an_older_count_could_name(fleet: Fleet) -> None:
    count(fleet, 1)
    fleet.connection.execute("UPDATE container_workers SET flapping_since = now() WHERE name = 'w2'")
    assert not drain(fleet, DrainOptions(deadline=timedelta(seconds=60), force=True)).is_over
    fleet.context.db.ahead += timedelta(seconds=61)
    fleet.settle()
    assert not progress(fleet).is_over
    count(fleet, 0)
    fleet.settle()
    assert progress(fleet).is_empty


def test_where_the_agent_counts_no_more_a_late_drain_says_so(fleet: Fleet) -> None:
    count(fleet, 1)
    drain(fleet, DrainOptions(deadline=timedelta(seconds=60)))
    fleet.context.db.ahead += timedelta(seconds=121)
    fleet.settle()
    assert progress(fleet).unknown == "its agent has not counted since the last container ended"
    assert progress(fleet).others == []


def test_a_node_that_somebody_opens_during_a_drain_is_closed_again(fleet: Fleet) -> None:
    service_id = run(fleet, "web")
    count(fleet, 2)
    assert not drain(fleet).is_over
    fleet.engine.set_availability(fleet.nodes["w1"], "active")
    fleet.settle()
    fleet.engine.remove(service_id)
    fleet.settle()
    count(fleet, 0)
    fleet.settle()
    assert progress(fleet).is_empty
    assert fleet.engine.nodes[fleet.nodes["w1"]].availability == "pause"


def test_a_node_that_is_down_for_a_moment_ends_no_drain(fleet: Fleet) -> None:
    run(fleet, "web")
    count(fleet, 2)
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.engine.lose(fleet.nodes["w1"])
    fleet.settle()
    assert not progress(fleet).is_over
    fleet.engine.heal(fleet.nodes["w1"])
    fleet.settle()
    count(fleet, 0)  # the swarm has stopped what it had given up meanwhile
    fleet.settle()
    assert progress(fleet).is_empty


def lose(fleet: Fleet) -> None:
    fleet.engine.lose(fleet.nodes["w1"])
    say(fleet, "engine_failed_at = now()")


def say(fleet: Fleet, values: str) -> None:
    fleet.connection.execute(f"UPDATE container_workers SET {values} WHERE name = 'w1'")


UNKNOWN: dict[str, Callable[[Fleet], None]] = {
    "its node is down": lose,
    "its agent is silent": lambda fleet: say(fleet, "status = 'offline', last_heartbeat_at = now() - interval '1 h'"),
    "its agent does not know how many containers run": lambda fleet: say(
        fleet, """metadata = '{"containerCountKnown": false}'"""
    ),
}


@pytest.mark.parametrize("why", UNKNOWN)
def test_where_nobody_can_say_what_else_runs_there_it_is_not_called_empty(fleet: Fleet, why: str) -> None:
    forget_ours(fleet)
    UNKNOWN[why](fleet)
    found = drain(fleet)
    assert (found.is_over, found.is_empty, found.has_left) == (True, False, False)
    assert (found.unknown, found.others) == (why, [])
    assert reasons(fleet) == [f"nothing of ours is left; what else runs there nobody can say: {why}"]


def test_of_a_node_that_is_not_confirmed_the_agents_count_says_what_is_left(fleet: Fleet) -> None:
    forget_ours(fleet)
    say(fleet, "swarm_node_id = NULL, swarm_node_claim = NULL, swarm_node_confirmed = NULL")
    count(fleet, 5)
    assert drain(fleet).others == ["of which nobody can say whose they are (5)"]
    assert progress(fleet).others_count == 5


def test_a_container_that_is_not_healthy_yet_is_counted_once(fleet: Fleet) -> None:
    forget_ours(fleet)
    service_id = run(fleet, "slow")
    fleet.engine.hold(service_id)
    count(fleet, 1)
    drain(fleet)
    count(fleet, 1)
    fleet.settle()
    assert (progress(fleet).others, progress(fleet).others_count) == (["slow"], 1)
