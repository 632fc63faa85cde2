"""Whoever can write rows, and may not order the engine, gets nothing ordered by a row that names another's service of
the engine: neither changed, stopped, removed nor nudged."""

from datetime import timedelta
from uuid import UUID

import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import EngineSpec
from skyctl.domain.errors import EngineRefused
from skyctl.domain.events import EventKind
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy, drains, services
from skyctl.rules.services import NOT_OURS, engine_name
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, look

LABEL = "skypanel.service.id"
LABELS = [pytest.param({LABEL: "of-somebody-else"}, id="labelled"), pytest.param({}, id="without-a-label")]


class Victim:
    """A service of the engine that is not skyctl's, and a row that says it is."""

    def __init__(self, fleet: Fleet, labels: dict[str, str]) -> None:
        self.fleet = fleet
        fleet.deploy("shop", to="w1")
        spec = EngineSpec(
            name="payroll",
            network="payroll-network",
            alias="payroll",
            node_id=fleet.nodes["w1"],
            image="payroll:1",
            limits=Capacity(0.25, 32),
            labels=labels,
            network_labels={},
        )
        self.id = fleet.engine.deploy(spec, None)
        fleet.engine.settle()
        self.real_id = str(fleet.services()["shop"].current.swarm_service_id)  # type: ignore[union-attr]
        self.name(self.id)
        self.before = self.seen()
        fleet.engine.orders.clear()

    def name(self, engine_id: str) -> None:
        """Have the row name a service of the engine."""
        named = "swarm_service_id = %s, container_id = NULL, created_as = NULL"
        self.fleet.connection.execute(f"UPDATE container_deployments SET {named}", (engine_id,))

    def seen(self) -> tuple[int, int | None, str | None]:
        """What somebody could have changed of it."""
        service = self.fleet.engine.observe([self.id]).services[self.id]
        return service.version, service.replicas, service.node_id

    def is_untouched(self) -> bool:
        """Whether it is as it was, and nobody has ordered anything of it."""
        touched = [order for order in self.fleet.engine.orders if order[1] in (self.id, "payroll")]
        return self.seen() == self.before and touched == []

    @property
    def service_id(self) -> UUID:
        """The service of the row."""
        return self.fleet.services()["shop"].id


@pytest.fixture(params=LABELS)
def victim(trio: Fleet, request: pytest.FixtureRequest) -> Victim:
    return Victim(trio, request.param)


def reasons(fleet: Fleet, kind: EventKind) -> list[str]:
    rows = fleet.connection.execute("SELECT reason FROM worker_events WHERE kind = %s ORDER BY seq", (kind.value,))
    return [row[0] for row in rows]


def drain(fleet: Fleet, options: DrainOptions = DrainOptions()) -> None:
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, options)
    look(fleet.context)
    fleet.settle()


def test_a_row_has_nothing_moved(victim: Victim) -> None:
    fleet = victim.fleet
    # as long as the monitor has not compared them, the row is one of a service that runs
    fleet.connection.execute("UPDATE container_deployments SET status = 'running'")
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions())
    look(fleet.context)
    fleet.settle()
    assert victim.is_untouched()
    failed = reasons(fleet, EventKind.MIGRATION_FAILED)
    assert failed == [f"shop: {NOT_OURS}"] or reasons(fleet, EventKind.SERVICE_FAILED) == [f"shop: {NOT_OURS}"]


def test_a_row_has_nothing_moved_back(victim: Victim) -> None:
    """A move that is under way when somebody changes the row, and whose target is gone."""
    fleet = victim.fleet
    victim.name(victim.real_id)
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions())
    look(fleet.context)
    fleet.step()
    target = fleet.migrations()["shop"].target_worker_id
    assert target
    victim.name(victim.id)
    gone = "swarm_node_id = NULL, swarm_node_claim = NULL"
    fleet.connection.execute(f"UPDATE container_workers SET {gone} WHERE id = %s", (target,))
    fleet.engine.orders.clear()
    fleet.step()
    assert victim.is_untouched()
    assert fleet.migrations()["shop"].reason == NOT_OURS


def test_a_row_has_nothing_stopped(victim: Victim) -> None:
    fleet = victim.fleet
    # nothing may be moved, and a forced drain stops what is left at once
    fleet.connection.execute("INSERT INTO migration_pauses (paused_by) VALUES ('tests')")
    fleet.connection.execute('UPDATE organizations SET settings = \'{"containerMigrationPolicy": "none"}\'')
    drain(fleet, DrainOptions(deadline=timedelta(microseconds=1), force=True))
    assert victim.is_untouched()
    assert fleet.services()["shop"].status in ("failed", "stopped")
    assert reasons(fleet, EventKind.SERVICE_FAILED) == [f"shop: {NOT_OURS}"]


def test_a_row_has_nothing_removed(victim: Victim) -> None:
    fleet = victim.fleet
    services.remove(fleet.context, victim.service_id, TESTS)
    assert victim.is_untouched()
    assert reasons(fleet, EventKind.SERVICE_REMOVED) == [f"shop: {NOT_OURS}, and was left"]


def test_a_row_has_nothing_nudged(victim: Victim) -> None:
    fleet = victim.fleet
    fleet.engine.double(victim.id)
    fleet.settle()
    assert victim.is_untouched()


def test_a_row_has_nothing_deployed_over(trio: Fleet) -> None:
    """Of the name that a service would have in the engine there is another's already."""
    organization = trio.organization
    spec = ServiceSpec("shop", "app:1", Capacity(1, 512, 1))
    name = f"org-{organization.id}-shop"
    other = EngineSpec(
        name, "n", "shop", trio.nodes["w1"], "payroll:1", Capacity(0.25, 32), {LABEL: "of-somebody-else"}, {}
    )
    foreign = trio.engine.deploy(other, None)
    trio.engine.orders.clear()
    with pytest.raises(EngineRefused, match="is another one"):
        deploy.deploy(trio.context, TESTS, organization, spec)
    trio.settle()
    assert trio.engine.orders == []
    assert trio.engine.observe([foreign]).services[foreign].image == "payroll:1"
    assert trio.services()["shop"].status == "failed"


def test_what_is_left_of_a_removed_service_is_not_another_ones(trio: Fleet) -> None:
    """A removed service whose deployment may still have reached the engine, where another's has its name by now."""
    trio.deploy("shop")
    service = trio.services()["shop"]
    services.remove(trio.context, service.id, TESTS)
    other = EngineSpec(
        engine_name(service), "n", "shop", trio.nodes["w1"], "payroll:1", Capacity(0.25, 32), {LABEL: "other"}, {}
    )
    foreign = trio.engine.deploy(other, None)
    trio.connection.execute("UPDATE container_deployments SET untold_since = now() - interval '1 hour'")
    trio.engine.orders.clear()
    trio.settle()
    assert trio.engine.orders == []
    assert foreign in trio.engine.observe().services


def test_what_is_skyctls_own_is_moved_stopped_and_removed_as_before(trio: Fleet) -> None:
    trio.deploy("shop", to="w1")
    drain(trio)
    assert trio.where()["shop"] != "w1"
    services.remove(trio.context, trio.services()["shop"].id, TESTS)
    assert trio.engine.observe().services == {}


def test_a_verdict_on_what_is_another_ones_is_told_once(trio: Fleet) -> None:
    Victim(trio, {LABEL: "of-somebody-else"})
    trio.settle()
    trio.settle()
    assert reasons(trio, EventKind.SERVICE_FAILED) == [f"shop: {NOT_OURS}"]
