"""Where a service could go now, and what keeps it from each other worker."""

import json
from typing import Any

from skyctl.operations.admin import cordons, drains, migrations
from skyctl.operations.monitor import migrations as monitor_migrations
from tests.support.fake_placed import replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS
from tests.support.in_process import InProcess


def engine_id(trio: Fleet, name: str) -> str:
    current = trio.services()[name].current
    assert current
    assert current.swarm_service_id
    return current.swarm_service_id


def why(typed: InProcess, trio: Fleet, service: str) -> dict[str, Any]:
    typed.engine = trio.engine
    told = typed("services", "why", service, "-o", "json")
    assert told.returncode == 0, told.stderr
    document: dict[str, Any] = json.loads(told.stdout)
    return document


def test_each_worker_is_told_and_the_best_is_where_it_goes(typed: InProcess, trio: Fleet) -> None:
    trio.deploy("web", to="w1", cores=2)
    trio.deploy("beside", to="w2", cores=1)
    trio.deploy("large", to="w3", cores=3)
    document = why(typed, trio, "web")
    assert (document["service"], document["workerName"], document["move"]) == ("web", "w1", None)
    told = {place["workerName"]: place["exclusion"] for place in document["places"]}
    assert list(told) == ["w2", "w1", "w3"]
    assert (told["w2"], told["w1"]) == (None, "it is there")
    assert told["w3"] == "no room: it lacks 1 CPU cores (needs 2, has 1 free)"
    shown = typed("services", "why", "web").stdout
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["w2", "w1", "w3"]
    assert shown.splitlines()[-1] == "on w1; 1 of 3 workers would do"
    assert typed("services", "why", "web", "-o", "name").stdout == "w2\n"
    drains.drain(trio.context, [trio.ids["w1"]], TESTS)
    trio.settle()
    assert trio.where()["web"] == "w2"


def test_what_waits_says_what_for(typed: InProcess, trio: Fleet) -> None:
    trio.deploy("web", to="w1")
    cordons.cordon(trio.context, [trio.ids["w2"], trio.ids["w3"]], TESTS, "disks")
    drains.drain(trio.context, [trio.ids["w1"]], TESTS)
    monitor_migrations.reconcile_migrations(trio.term())
    trio.settle()
    [move] = migrations.list_migrations(trio.context).migrations
    document = why(typed, trio, "web")
    assert document["move"]["id"] == str(move.id)
    told = {place["workerName"]: place["exclusion"] for place in document["places"]}
    assert told == {"w1": "it is there; draining", "w2": "cordoned", "w3": "cordoned"}
    shown = typed("services", "why", "web").stdout
    assert move.reason in shown.replace("\n", " ")
    assert "0 of 3 workers would do" in shown


def test_what_no_drain_moves_says_why(typed: InProcess, trio: Fleet) -> None:
    trio.deploy("data", to="w1")
    trio.engine.mount(engine_id(trio, "data"), "/srv/data")
    stays = why(typed, trio, "data")["stays"]
    assert stays == "it keeps data on its node: /srv/data"
    assert f"It stays: {stays}" in typed("services", "why", "data").stdout


def test_what_moves_is_on_its_way_and_takes_no_place_of_its_own(typed: InProcess, trio: Fleet) -> None:
    trio.deploy("web", to="w1", cores=3)
    trio.deploy("beside", to="w3", cores=2)
    trio.engine.hold(engine_id(trio, "web"))
    drains.drain(trio.context, [trio.ids["w1"]], TESTS)
    trio.step()
    trio.step()
    document = why(typed, trio, "web")
    assert document["move"]["state"] in ("starting", "verifying")
    told = {place["workerName"]: place["exclusion"] for place in document["places"]}
    assert (told["w1"], told["w2"]) == ("it is there; draining", "it is on its way there")


def test_of_several_containers_the_swarms_rules_are_told(typed: InProcess, trio: Fleet) -> None:
    trio.deploy("many", replicas=2)
    trio.engine.set_availability(trio.nodes["w3"], "pause")
    told = {place["workerName"]: place["exclusion"] for place in why(typed, trio, "many")["places"]}
    assert told == {"w1": None, "w2": None, "w3": "its node takes nothing new"}
    assert "2 containers, which the swarm places; 2 of 3 workers would do" in typed("services", "why", "many").stdout


def test_what_is_not_ours_is_not_found(typed: InProcess, trio: Fleet) -> None:
    typed.engine = trio.engine
    trio.engine.place(replicated("foreign"))
    assert typed("services", "why", "foreign").returncode == 3
