"""A deployment that the engine has no place for goes on to the next worker, and one that does not come to run ends."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import services
from skyctl.operations.monitor import second_choices
from skyctl.rules.services import NOT_IN_TIME
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS

SECOND = timedelta(seconds=1)
NO_PLACE = "no suitable node (its node takes nothing new on 1 node)"


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Two workers."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        yield fleet


@pytest.fixture
def lone(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """One worker."""
    with fleet_of(database_url, connection, "w1") as fleet:
        yield fleet


def deploy(fleet: Fleet, image: str = "app:1") -> str:
    """Deploy, and see nothing of it yet; return where it is to go."""
    spec = ServiceSpec("web", image, Capacity(1, 512, 1))
    return str(deploy_admin.deploy(fleet.context, TESTS, fleet.organization, spec).target)


def after(fleet: Fleet, time: timedelta) -> None:
    """It is so much later."""
    fleet.step()
    fleet.step()
    fleet.context.db.ahead += time
    fleet.beat()
    fleet.settle()


def kinds(fleet: Fleet) -> list[str]:
    rows = fleet.connection.execute("SELECT kind FROM worker_events WHERE kind LIKE 'service_%' ORDER BY seq")
    return [kind for (kind,) in rows]


def containers(fleet: Fleet) -> set[str | None]:
    [service] = fleet.engine.observe().services.values()
    return {task.container_id for task in service.tasks if task.state == "running"}


def test_a_first_deployment_goes_on_to_the_next_worker(fleet: Fleet) -> None:
    first = deploy(fleet)
    fleet.engine.set_availability(fleet.nodes[first], "pause")
    after(fleet, second_choices.VERDICT + SECOND)
    other = "w2" if first == "w1" else "w1"
    assert (fleet.where(), fleet.running()) == ({"web": other}, {"web": [other]})
    assert kinds(fleet) == ["service_deployed", "service_redirected", "service_running"]
    [(reason,)] = fleet.connection.execute("SELECT reason FROM worker_events WHERE kind = 'service_redirected'")
    assert reason.startswith(f"web: {first} does not take it ({NO_PLACE}): it goes to {other}, ")
    deployments, migrations = services.history(fleet.context, fleet.services()["web"].id)
    assert (len(deployments), migrations) == (1, []), "it is the same deployment, and no attempt"


def test_an_update_goes_on_to_the_next_worker_while_the_former_one_runs(fleet: Fleet) -> None:
    fleet.deploy("web", to="w1")
    before = containers(fleet)
    deploy(fleet, "app:2")
    fleet.engine.set_availability(fleet.nodes["w1"], "pause")
    fleet.step()
    fleet.context.db.ahead += second_choices.VERDICT + SECOND
    fleet.beat()
    for _ in range(8):
        fleet.step()
        assert containers(fleet) >= before or fleet.running() == {"web": ["w2"]}
    fleet.settle()
    assert (fleet.where(), fleet.running()) == ({"web": "w2"}, {"web": ["w2"]})
    assert fleet.services()["web"].spec.image == "app:2"


def test_an_update_that_fits_nowhere_goes_back_without_touching_what_runs(lone: Fleet) -> None:
    lone.deploy("web", to="w1")
    before = containers(lone)
    deploy(lone, "app:2")
    lone.engine.set_availability(lone.nodes["w1"], "pause")
    after(lone, second_choices.HOPELESS + SECOND)
    found = lone.services()["web"]
    assert (found.status, found.spec.image, containers(lone)) == ("running", "app:1", before)
    [last, _] = services.history(lone.context, found.id)[0]
    assert (last.status, last.log) == ("rolled_back", NO_PLACE)
    assert kinds(lone)[-1] == "service_rolled_back"


def test_a_first_deployment_that_fits_nowhere_has_failed_until_it_fits(lone: Fleet) -> None:
    deploy(lone)
    lone.engine.set_availability(lone.nodes["w1"], "pause")
    after(lone, second_choices.HOPELESS + SECOND)
    found = lone.services()["web"]
    assert (found.status, found.current and found.current.log) == ("failed", NO_PLACE)
    lone.settle()
    assert kinds(lone).count("service_failed") == 1
    lone.engine.set_availability(lone.nodes["w1"], "active")
    lone.settle()
    assert lone.services()["web"].status == "running"


def test_a_first_deployment_that_does_not_run_in_time_has_failed(lone: Fleet) -> None:
    deploy(lone)
    lone.engine.cut(lone.nodes["w1"])
    timeout = lone.context.migrations.deployment_timeout
    after(lone, timeout / 2)
    assert lone.services()["web"].status == "deploying"
    after(lone, timeout)
    found = lone.services()["web"]
    assert (found.status, found.current and found.current.log) == ("failed", NOT_IN_TIME)
    lone.engine.heal(lone.nodes["w1"])
    lone.engine.settle()
    lone.settle()
    assert lone.services()["web"].status == "running"


def test_an_update_that_does_not_run_in_time_goes_back(lone: Fleet) -> None:
    lone.deploy("web", to="w1")
    before = containers(lone)
    deploy(lone, "app:2")
    lone.engine.cut(lone.nodes["w1"])
    after(lone, lone.context.migrations.deployment_timeout + SECOND)
    lone.engine.heal(lone.nodes["w1"])
    lone.engine.settle()
    lone.settle()
    found = lone.services()["web"]
    assert (found.status, found.spec.image, containers(lone)) == ("running", "app:1", before)
    [last, _] = services.history(lone.context, found.id)[0]
    assert (last.status, last.log) == ("rolled_back", NOT_IN_TIME)
