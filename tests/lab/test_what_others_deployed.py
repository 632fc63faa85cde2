"""Services that skyctl does not manage, and containers outside of Swarm: seen, and never overlooked by a drain."""

from skyctl.domain.workloads import DrainOptions, DrainProgress
from skyctl.operations.admin import drains, swarm_services
from tests.support.helpers import TESTS, eventually

from . import images
from .site import Site


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
        assert (found.is_managed, found.engine.stack, found.engine.mounts) == (False, "shop", ["/tmp:/data"])
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
