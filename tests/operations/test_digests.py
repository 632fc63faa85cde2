"""An image is what its name meant when it was deployed, wherever it is moved."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import Planned
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import drains, services, swarm_orders, swarm_services
from tests.operations.fleets import fleet_of
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS

OLD, NEW = (f"sha256:{digit * 64}" for digit in "12")
SPEC = ServiceSpec("web", "app:latest", Capacity(1, 512, 1))


@pytest.fixture
def fleet(database_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    """Two workers, and a registry."""
    with fleet_of(database_url, connection, "w1", "w2") as fleet:
        fleet.engine.digests = {"app:latest": OLD}
        yield fleet


def deploy(fleet: Fleet, spec: ServiceSpec = SPEC, *, keeps_image: bool = False) -> Planned:
    planned = deploy_admin.deploy(fleet.context, TESTS, fleet.organization, spec, keeps_image=keeps_image)
    fleet.engine.settle()
    fleet.settle()
    return planned


def image(fleet: Fleet) -> str:
    [service] = fleet.engine.observe().services.values()
    return service.image


def test_a_drain_runs_the_image_that_was_deployed(fleet: Fleet) -> None:
    assert deploy(fleet).unpinned == ""
    assert image(fleet) == f"app:latest@{OLD}"
    fleet.engine.digests = {"app:latest": NEW}
    source = str(fleet.where()["web"])
    drains.drain(fleet.context, [fleet.ids[source]], TESTS)
    fleet.settle()
    found = fleet.services()["web"]
    assert fleet.where()["web"] != source
    assert image(fleet) == f"app:latest@{OLD}"
    assert (found.spec.image, found.current and found.current.digest) == ("app:latest", OLD)


def test_another_deployment_takes_what_the_name_means_now_unless_the_image_is_to_stay(fleet: Fleet) -> None:
    deploy(fleet)
    fleet.engine.digests = {"app:latest": NEW}
    deploy(fleet, replace(SPEC, environment={"A": "2"}), keeps_image=True)
    assert image(fleet) == f"app:latest@{OLD}"
    deploy(fleet)
    assert image(fleet) == f"app:latest@{NEW}"


def test_what_goes_back_goes_back_to_its_digest(fleet: Fleet) -> None:
    deploy(fleet)
    fleet.engine.digests = {"app:latest": NEW}
    fleet.engine.absent = {("*", f"app:latest@{NEW}")}
    deploy(fleet)
    found = fleet.services()["web"]
    assert (found.status, found.current and found.current.digest, image(fleet)) == ("running", OLD, f"app:latest@{OLD}")
    assert [each.digest for each in services.history(fleet.context, found.id)[0]] == [NEW, OLD]


@pytest.mark.parametrize(
    ("name", "unpinned"), [("mine:1", "no registry has mine:1"), (f"mine:1@{OLD}", ""), (f"mine@{OLD}", "")]
)
def test_without_a_registry_it_is_the_name_that_is_deployed_and_that_is_said(
    fleet: Fleet, name: str, unpinned: str
) -> None:
    assert deploy(fleet, replace(SPEC, image=name)).unpinned == unpinned
    assert image(fleet) == name
    assert fleet.services()["web"].status == "running"


def test_another_number_of_containers_keeps_what_they_run(fleet: Fleet) -> None:
    deploy(fleet)
    fleet.engine.digests = {"app:latest": NEW}
    before = {task.id for service in fleet.engine.observe().services.values() for task in service.tasks}
    swarm_orders.scale(fleet.context, TESTS, swarm_services.find(fleet.context, "web"), 2)
    fleet.engine.settle()
    fleet.settle()
    [service] = fleet.engine.observe().services.values()
    assert before < {task.id for task in service.tasks if task.state == "running"}
    found = fleet.services()["web"]
    assert (service.image, found.current and found.current.digest) == (f"app:latest@{OLD}", OLD)


def test_deployed_with_another_number_it_takes_what_the_name_means_now(fleet: Fleet) -> None:
    deploy(fleet)
    fleet.engine.digests = {"app:latest": NEW}
    deploy(fleet, replace(SPEC, replicas=2))
    found = fleet.services()["web"]
    assert (image(fleet), found.current and found.current.digest) == (f"app:latest@{NEW}", NEW)


def test_a_rollback_to_what_had_no_digest_gives_it_none(fleet: Fleet) -> None:
    """What the name means by now is not what it was."""
    fleet.engine.digests = {}
    deploy(fleet)
    fleet.engine.digests = {"app:latest": NEW, "app:2": NEW}
    deploy(fleet, replace(SPEC, image="app:2"))
    known = swarm_services.find(fleet.context, "web")
    swarm_orders.roll_back(fleet.context, TESTS, known, swarm_orders.way_back(fleet.context, known))
    fleet.settle()
    assert image(fleet) == "app:latest"


def test_a_rollback_goes_back_to_what_the_name_meant(fleet: Fleet) -> None:
    deploy(fleet)
    fleet.engine.digests = {"app:latest": NEW}
    deploy(fleet)
    known = swarm_services.find(fleet.context, "web")
    way = swarm_orders.way_back(fleet.context, known)
    assert [change.text for change in way.changes] == [f"digest: {NEW} -> {OLD}"]
    swarm_orders.roll_back(fleet.context, TESTS, known, way)
    fleet.engine.settle()
    fleet.settle()
    assert image(fleet) == f"app:latest@{OLD}"
