"""On a real swarm: the deployment that was wanted last is the one that runs, and a stale term orders nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import cast

import pytest

from skyctl.domain.errors import EngineUnavailable, LostLead, Refused
from skyctl.domain.states import EndpointMode
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import drains
from skyctl.operations.monitor import migrations, services
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context, Engine
from tests.support.helpers import TESTS, eventually
from tests.support.interleaving import HeldBack

from . import images
from .site import LIMITS, Site

OLDER, NEWER = "older:1", "newer:1"


def deploy(site: Site, context: Context, image: str) -> None:
    spec = ServiceSpec("a", image, LIMITS, endpoint_mode=EndpointMode.DNSRR)
    deploy_admin.deploy(context, TESTS, site.organization, spec)


def observed_images(site: Site) -> list[str]:
    return [service.image for service in site.swarm.engine.observe().services.values()]


@pytest.fixture
def two_images(site: Site) -> None:
    """The same image by two more names, on every worker."""
    for node in site.swarm.workers:
        for image in (OLDER, NEWER):
            node.run("docker", "tag", images.WEB, image)


@pytest.mark.usefixtures("two_images")
@pytest.mark.parametrize("exists", [True, False])
def test_an_older_deployment_does_not_overwrite_a_newer_one(site: Site, exists: bool) -> None:
    site.monitor()
    site.until_active("north", "south")
    if exists:
        site.deploy("a", to="north")
    held = HeldBack(site.swarm.engine)
    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(deploy, site, replace(site.context, engine=held.engine), OLDER)
        held.until_arrived()
        deploy(site, site.context, NEWER)
        held.release()
        error = older.exception()
    assert isinstance(error, Refused)
    assert error.message == f"a was deployed again, with {NEWER}, before {OLDER} was"
    eventually(lambda: site.services()["a"].status == "running")
    assert observed_images(site) == [NEWER]
    assert site.services()["a"].spec.image == NEWER
    eventually(lambda: site.running() == {"a": [site.where()["a"]]})


class Away:
    """An engine that shows what it has, and then does not answer."""

    def __init__(self, site: Site) -> None:
        self.observe, self.tasks_on = site.swarm.engine.observe, site.swarm.engine.tasks_on

    def __getattr__(self, name: str) -> Callable[..., None]:
        def away(*_: object) -> None:
            raise EngineUnavailable("away")

        return away


def lead(site: Site) -> leadership.Term:
    term = leadership.lead(site.context, "tests", lambda _: True)
    assert term
    return term


def has_begun(site: Site, term: leadership.Term) -> bool:
    with suppress(EngineUnavailable):
        migrations.reconcile_migrations(term)
    return site.states() == {"a": "starting"}


@pytest.mark.usefixtures("two_images")
def test_a_stale_term_orders_nothing(site: Site) -> None:
    monitor = site.monitor()
    site.until_active("north", "south")
    assert monitor.stop() == 0
    with pytest.raises(EngineUnavailable):
        deploy(site, replace(site.context, engine=lambda: cast(Engine, Away(site))), OLDER)
    site.connection.execute("UPDATE container_deployments SET untold_since = untold_since - interval '1 minute'")
    stale, term = lead(site), lead(site)
    with pytest.raises(LostLead):
        services.reconcile_services(stale, all_of_them=True)
    assert observed_images(site) == []
    eventually(lambda: services.reconcile_services(term, all_of_them=True) and site.services()["a"].status == "running")
    assert observed_images(site) == [OLDER]

    drains.drain(site.context, [site.worker(str(site.where()["a"])).id], TESTS)
    cut_off = replace(term, context=replace(site.context, engine=lambda: cast(Engine, Away(site))))
    eventually(lambda: has_begun(site, cut_off))
    before = site.swarm.engine.observe().services
    newest = lead(site)
    with pytest.raises(LostLead):
        migrations.reconcile_migrations(term)
    assert {key: each.node_id for key, each in site.swarm.engine.observe().services.items()} == {
        key: each.node_id for key, each in before.items()
    }
    eventually(lambda: migrations.reconcile_migrations(newest) and site.states() == {"a": "completed"})
    assert site.running() == {"a": [site.where()["a"]]}


def deploy_and_pause(site: Site, image: str, *, everywhere: bool = False) -> str:
    """Deploy, and let the node that was chosen take nothing new before the engine is told; return the worker's name."""
    held = HeldBack(site.swarm.engine)
    with ThreadPoolExecutor(1) as pool:
        deploying = pool.submit(deploy, site, replace(site.context, engine=held.engine), image)
        held.until_arrived()
        chosen = str(site.where()["a"])
        for name, node_id in site.swarm.ids.items():
            site.swarm.engine.set_availability(node_id, "pause" if everywhere or name == chosen else "active")
        held.release()
        deploying.result()
    return chosen


@pytest.mark.usefixtures("two_images")
def test_what_the_engine_has_no_place_for_goes_on_to_the_next_worker_or_back(site: Site) -> None:
    site.monitor()
    site.until_active("north", "south")
    first = deploy_and_pause(site, OLDER)
    eventually(lambda: site.services()["a"].status == "running")
    other = "south" if first == "north" else "north"
    assert (site.where(), site.running()) == ({"a": other}, {"a": [other]})
    assert deploy_and_pause(site, NEWER) == other
    eventually(lambda: (site.where(), observed_images(site)) == ({"a": first}, [NEWER]))
    eventually(lambda: site.services()["a"].status == "running" and site.running() == {"a": [first]})
    before = site.services()["a"].current
    deploy_and_pause(site, OLDER, everywhere=True)
    eventually(lambda: site.services()["a"].status == "running" and observed_images(site) == [NEWER])
    after = site.services()["a"].current
    assert before
    assert after
    assert (after.id, after.container_id) == (before.id, before.container_id)
    assert site.running() == {"a": [first]}
