"""Services that skyctl does not manage, and containers outside of Swarm: seen, and never
overlooked, by a drain or after a failure."""

from collections.abc import Callable

import psycopg
import pytest

from skyctl.domain.drains import DrainOptions, DrainProgress
from skyctl.domain.engine import Mount
from skyctl.operations.admin import drains, swarm_services
from tests.conftest import Process, make_context
from tests.support.helpers import TESTS, eventually

from . import images
from .conftest import ANY_LOAD
from .site import Site
from .swarm import Swarm


def test_a_drain_names_what_others_run_there_and_is_empty_once_that_has_gone(site: Site) -> None:
    north, manager = site.swarm.workers[0], site.swarm.manager
    site.monitor()
    site.until_active("north", "south")
    site.deploy("ours", to="north")
    placed = ("--constraint", f"node.id=={site.swarm.ids['north']}", "--network", site.network)
    options = ("--detach", "--no-resolve-image", "--replicas", "2", "--endpoint-mode", "dnsrr")
    marked = ("--label", "com.docker.stack.namespace=shop", "--mount", "type=bind,source=/tmp,target=/data")
    manager.run("docker", "service", "create", *options, *marked, *placed, "--name", "web", images.WEB)
    north.run("docker", "run", "--detach", "--name", "beside", "--network", "none", images.WEB)

    def web() -> tuple[int, int]:
        found = {each.engine.name: each for each in swarm_services.everything(site.context)}["web"]
        assert (found.is_managed, found.engine.stack) == (False, "shop")
        assert found.engine.mounts == [Mount("bind", "/tmp", "/data")]
        return found.running, found.wanted

    eventually(lambda: web() == (2, 2))
    worker = site.worker("north")

    def there() -> dict[str, int]:
        return {each.name: each.containers for each in swarm_services.on_worker(site.context, worker)}

    eventually(lambda: there()["web"] == 2)
    drains.drain(site.context, [worker.id], TESTS, DrainOptions())

    def progress() -> DrainProgress:
        [found] = drains.progress(site.context, [worker.id])
        return found

    eventually(lambda: progress().is_over)
    assert site.where()["ours"] == "south"
    assert (progress().is_empty, progress().others) == (False, ["web (2)", "outside of Swarm"])

    manager.run("docker", "service", "rm", "web")
    north.run("docker", "rm", "--force", "beside")
    drains.drain(site.context, [worker.id], TESTS, DrainOptions())
    eventually(lambda: progress().is_over and not progress().others)
    assert progress().is_empty
    assert site.containers(north) == 0


@pytest.mark.parametrize(
    ("timeout_seconds", "ordered"), [pytest.param(40, False, id="down by then"), pytest.param(8, True, id="still up")]
)
def test_what_a_lost_worker_had_is_followed_to_where_the_swarm_starts_it(
    swarm: Swarm,
    database_url: str,
    connection: psycopg.Connection,
    start: Callable[..., Process],
    timeout_seconds: int,
    *,
    ordered: bool,
) -> None:
    """The swarm calls a node down after some 15 s: an agent that is missed before that is a node that is up."""
    context = make_context(database_url, engine=swarm.engine, health=ANY_LOAD)
    site = Site(swarm, context, connection, start, WORKER_HEARTBEAT_TIMEOUT=str(timeout_seconds))
    north, manager = swarm.workers[0], swarm.manager
    try:
        site.monitor()
        site.until_active("north", "south")
        site.deploy("ours", to="north")
        options = ("--detach", "--no-resolve-image", "--replicas", "2", "--endpoint-mode", "dnsrr")
        placed = ("--constraint", "node.role==worker", "--network", site.network)
        manager.run("docker", "service", "create", *options, *placed, "--name", "web", images.WEB)

        def places() -> list[tuple[str | None, int]]:
            found = {each.engine.name: each for each in swarm_services.everything(context)}["web"]
            return sorted((each.worker_name, each.containers) for each in found.places)

        eventually(lambda: places() == [("north", 1), ("south", 1)])
        before = manager.run("docker", "service", "inspect", "web", "--format", "{{json .Spec}}")
        version = manager.run("docker", "service", "inspect", "web", "--format", "{{.Version.Index}}")
        north.cut()
        eventually(lambda: site.states() == {"ours": "completed", "web": "completed"})
        web = site.migrations()["web"]
        assert (web.cause, web.service_id, web.target_worker_name) == ("worker_failed", None, "south")
        # the swarm may have replaced the container on its own, beside the order
        eventually(lambda: places() == [("south", 2)])
        eventually(lambda: manager.run("docker", "service", "inspect", "web", "--format", "{{json .Spec}}") == before)
        now = manager.run("docker", "service", "inspect", "web", "--format", "{{.Version.Index}}")
        assert (now != version) is ordered, "the swarm alone has moved it"
        finished = "SELECT reason FROM worker_events WHERE kind = 'migrations_finished'"
        eventually(lambda: connection.execute(finished).fetchall() == [("2 completed",)])
        north.heal()
        eventually(lambda: all(each.source_stopped_at for each in site.migrations().values()))
        eventually(lambda: site.containers(north) == 0)
    finally:
        site.close()
        context.db.close()
