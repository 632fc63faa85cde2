"""Services in the panel's own database: what its API deploys and deletes, its quota, and its organizations."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineSpec
from skyctl.domain.errors import OrganizationNotFound, ServiceNotFound
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import adoption, drains, schema, services, swarm_services
from skyctl.operations.admin import deploy as deploy_admin
from tests.conftest import make_context
from tests.operations.fleets import fleet_of
from tests.support.fake_placed import replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS

TABLES = (Path(__file__).parents[1] / "support/panel.sql").read_text()
OWNER = "INSERT INTO users (email, password_hash, name, role) VALUES ('a@example.com', '', 'a', 'admin') RETURNING id"


@pytest.fixture
def panel_url(make_database: Callable[[str], str]) -> str:
    """A database of the panel's, with one organization."""
    url = make_database("template1")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(
            f"WITH owner AS ({OWNER}) INSERT INTO organizations (name, slug, owner_id) "
            "SELECT 'Acme', 'acme', id FROM owner"
        )
    context = make_context(url)
    schema.initialize(context)
    context.db.close()
    return url


@pytest.fixture
def connection(panel_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(panel_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def fleet(panel_url: str, connection: psycopg.Connection) -> Iterator[Fleet]:
    with fleet_of(panel_url, connection, "w1", "w2", "w3") as fleet:
        yield fleet


def usage(connection: psycopg.Connection) -> dict[str, float]:
    """What the panel has summed up of its organization."""
    row = connection.execute("SELECT container_quota_usage FROM organizations").fetchone()
    assert row
    summed: dict[str, float] = row[0]
    return summed


def written(connection: psycopg.Connection, slug: str, worker_id: UUID | None = None, engine_id: str = "") -> UUID:
    """A service that the panel wrote down, with its deployment."""
    row = connection.execute(
        "WITH service AS (INSERT INTO container_services (organization_id, name, slug, resource_limits, status) "
        'SELECT id, %(slug)s, %(slug)s, \'{"cpuCores": 1, "memoryMb": 512, "diskGb": 1}\', \'running\' '
        "FROM organizations RETURNING id) INSERT INTO container_deployments "
        "(service_id, worker_id, swarm_service_id, image_tag, status) "
        "SELECT id, %(worker)s, nullif(%(engine)s, ''), '1', 'running' FROM service RETURNING service_id, id",
        {"slug": slug, "worker": worker_id, "engine": engine_id},
    ).fetchone()
    assert row
    connection.execute("UPDATE container_services SET current_deployment_id = %s WHERE id = %s", (row[1], row[0]))
    service_id: UUID = row[0]
    return service_id


def delete(connection: psycopg.Connection, slug: str) -> None:
    """The panel deletes a service: it marks the row, and tells the engine nothing."""
    connection.execute("UPDATE container_services SET status = 'deleted' WHERE slug = %s", (slug,))
    connection.execute(
        "UPDATE container_deployments d SET status = 'stopped', stopped_at = now() FROM container_services s "
        "WHERE s.id = d.service_id AND s.slug = %s AND d.status IN ('running', 'deploying')",
        (slug,),
    )


def names(fleet: Fleet) -> list[str]:
    """What the engine runs, by the last word of its name."""
    return sorted(each.name.rpartition("-")[2] for each in fleet.engine.observe().services.values())


def removals(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT actor, reason FROM worker_events WHERE kind = 'service_removed' ORDER BY seq"
    ).fetchall()


def test_parts_of_a_gibibyte_are_stored_so_that_the_panels_quota_can_be_summed_up(
    fleet: Fleet, connection: psycopg.Connection
) -> None:
    spec = ServiceSpec("web", "app:1", Capacity(0.5, 100.5, 0.25))
    deploy_admin.deploy(fleet.context, TESTS, fleet.organization, spec)
    assert fleet.services()["web"].spec.limits == Capacity(0.5, 100.5, 0.25)
    assert usage(connection) == {"cpu_cores": 0.5, "memory_mb": 101, "disk_gb": 1, "service_count": 1}


def test_the_panel_can_read_the_limits_of_what_skyctl_deploys(fleet: Fleet, connection: psycopg.Connection) -> None:
    fleet.deploy("web", cores=2, memory=256)
    row = connection.execute("SELECT resource_limits FROM container_services").fetchone()
    assert row
    assert {name: row[0][name] for name in ("cpuCores", "memoryMb", "diskGb")} == {
        "cpuCores": 2,
        "memoryMb": 256,
        "diskGb": 1,
    }


def test_a_service_of_the_swarm_is_adopted_with_the_limits_that_it_has_there(
    fleet: Fleet, connection: psycopg.Connection
) -> None:
    spec = EngineSpec("shop", "net", "shop", fleet.nodes["w1"], "app:1", Capacity(0.5, 256.0), {}, {})
    fleet.engine.deploy(spec, None)
    fleet.engine.settle()
    [found] = adoption.adoptable(fleet.context)
    assert adoption.adopt(fleet.context, TESTS, fleet.organization, [found]) == []
    assert usage(connection) == {"cpu_cores": 0.5, "memory_mb": 256, "disk_gb": 10, "service_count": 1}


def test_no_organization_is_made_where_each_has_an_owner(fleet: Fleet, connection: psycopg.Connection) -> None:
    for reference in ("default", None):
        with pytest.raises(OrganizationNotFound) as refused:
            services.organization(fleet.context, reference, make=True)
        assert refused.value.hint == "the panel makes them"
        connection.execute("DELETE FROM organizations")


def test_what_the_panel_deployed_is_not_adopted_as_another_service(
    fleet: Fleet, connection: psycopg.Connection
) -> None:
    labels = {"skypanel.service.id": str(written(connection, "shop"))}
    fleet.engine.place(replicated("org-1-shop", replicas=3, Labels=labels))
    [found] = adoption.adoptable(fleet.context)
    assert (found.obstacle, found.even_if) == ("the panel deploys it, as its service shop", None)
    with pytest.raises(ServiceNotFound) as refused:
        swarm_services.find(fleet.context, "shop")
    assert "services list --all" in refused.value.hint


def test_of_several_containers_none_is_pinned_though_the_panels_row_names_a_worker(
    fleet: Fleet, connection: psycopg.Connection
) -> None:
    engine_id = fleet.engine.place(replicated("org-1-shop", replicas=3))
    labels = {"skypanel.service.id": str(written(connection, "shop", fleet.ids["w1"], engine_id))}
    fleet.engine.change(engine_id, Labels=labels)
    fleet.settle()
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    fleet.settle()
    service = fleet.engine.observe().services[engine_id]
    assert (service.node_id, service.replicas) == (None, 3)
    assert set(fleet.running()["shop"]) == {"w2", "w3"}
    assert fleet.services()["shop"].status == "running"


def test_what_the_panel_deletes_of_ours_is_removed_from_the_swarm(fleet: Fleet, connection: psycopg.Connection) -> None:
    fleet.deploy("shop", "web")
    delete(connection, "shop")
    fleet.settle()
    assert names(fleet) == ["web"]
    assert removals(connection) == [("panel", "shop")]
    fleet.settle()
    assert len(removals(connection)) == 1
    fleet.deploy("shop")
    assert names(fleet) == ["shop", "web"]


def test_what_the_panel_deploys_and_deletes_itself_is_left_to_it(fleet: Fleet, connection: psycopg.Connection) -> None:
    engine_id = fleet.engine.place(replicated("org-1-shop"))
    service_id = written(connection, "shop", fleet.ids["w1"], engine_id)
    fleet.engine.change(engine_id, Labels={"skypanel.service.id": str(service_id)})
    delete(connection, "shop")
    fleet.settle()
    assert (names(fleet), removals(connection)) == (["shop"], [])


def failed_over(connection: psycopg.Connection, slug: str, worker_id: UUID) -> None:
    """The panel's sweep takes a worker for failed, and moves a service in its tables; it tells the engine nothing."""
    connection.execute(
        "WITH ended AS (UPDATE container_deployments d SET status = 'stopped', stopped_at = now() "
        "FROM container_services s WHERE d.id = s.current_deployment_id AND s.slug = %(slug)s RETURNING d.*), "
        "moved AS (INSERT INTO container_deployments (service_id, worker_id, image_tag, status) "
        "SELECT service_id, %(worker)s, image_tag, 'deploying' FROM ended RETURNING id, service_id) "
        "UPDATE container_services s SET current_deployment_id = moved.id, status = 'deploying' "
        "FROM moved WHERE s.id = moved.service_id",
        {"slug": slug, "worker": worker_id},
    )


def test_what_the_panel_moved_in_its_tables_alone_is_moved_in_the_swarm(
    fleet: Fleet, connection: psycopg.Connection
) -> None:
    fleet.deploy("shop", "web", to="w1")
    fleet.fail("w1")
    failed_over(connection, "shop", fleet.ids["w2"])
    fleet.settle()
    for name, worker in fleet.where().items():
        assert worker in ("w2", "w3")
        assert set(fleet.running()[name]) == {"w1", worker}, "the swarm knows nothing else of what w1 ran"
    assert {each.state for each in fleet.migrations().values()} == {"completed"}
    assert {each.status for each in fleet.services().values()} == {"running"}


def test_a_deployment_that_the_panel_begins_is_left_to_it(fleet: Fleet, connection: psycopg.Connection) -> None:
    fleet.deploy("shop", to="w1")
    connection.execute(
        "WITH begun AS (INSERT INTO container_deployments (service_id, image_tag, status) "
        "SELECT id, '2', 'deploying' FROM container_services RETURNING id) "
        "UPDATE container_services SET current_deployment_id = begun.id, status = 'deploying' FROM begun"
    )
    fleet.settle()
    assert fleet.services()["shop"].status == "deploying"
