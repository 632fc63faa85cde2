"""Workers that beat without their engine, on a real swarm and on a real host: nothing of an agent's is stopped."""

import sys
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from skyctl.domain.cluster import Worker
from tests.conftest import Process, make_context
from tests.support.helpers import eventually

from .conftest import ANY_LOAD
from .console import Console
from .machines import Host, Node
from .site import Site
from .swarm import Swarm

GRACE_SECONDS = 15


@pytest.fixture
def quick_site(
    swarm: Swarm, database_url: str, connection: psycopg.Connection, start: Callable[..., Process]
) -> Iterator[Site]:
    """A site that waits for engines but a short time."""
    context = make_context(database_url, engine=swarm.engine, health=ANY_LOAD)
    site = Site(swarm, context, connection, start, WORKER_ENGINE_GRACE=str(GRACE_SECONDS))
    yield site
    site.close()
    context.db.close()


def signal(node: Node, name: str) -> None:
    """Send a signal to the engine of a node, and to nothing else there."""
    node.run("pkill", f"-{name}", "-x", "dockerd")


def beats(site: Site, name: str, count: int) -> None:
    """Wait for so many heartbeats more of a worker."""
    for _ in range(count):
        before = site.worker(name).last_heartbeat_at
        eventually(lambda before=before: site.worker(name).last_heartbeat_at != before)  # type: ignore[misc]


def alerts(site: Site) -> list[str]:
    return [row[0] for row in site.connection.execute("SELECT kind FROM worker_alerts ORDER BY id")]


def hide(node: Node, *, hidden: bool) -> None:
    """Take the engine's socket away, or put it back."""
    here, away = "/run/docker.sock", "/run/docker.sock.away"
    node.run("mv", *((here, away) if hidden else (away, here)))


TROUBLES: dict[str, tuple[Callable[[Node], None], Callable[[Node], None]]] = {
    "it hangs": (lambda node: signal(node, "STOP"), lambda node: signal(node, "CONT")),
    "its socket is gone": (lambda node: hide(node, hidden=True), lambda node: hide(node, hidden=False)),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_ran_under_an_engine_that_does_not_answer_runs_elsewhere_and_once_when_it_is_back(
    quick_site: Site, trouble: str
) -> None:
    site, north, (fail, mend) = quick_site, quick_site.swarm.workers[0], TROUBLES[trouble]
    site.monitor()
    site.until_active("north", "south")
    site.deploy("web", to="north")
    began = time.monotonic()
    fail(north)
    try:
        eventually(lambda: site.worker("north").status == "unhealthy")
        unhealthy_after = time.monotonic() - began
        eventually(lambda: site.where() == {"web": "south"} and site.states() == {"web": "completed"})
        elsewhere_after = time.monotonic() - began
        beats(site, "north", 2)
        hung = site.worker("north")
        assert (hung.status, hung.container_count) == ("unhealthy", None)
        assert alerts(site)[0] == "worker_unhealthy"
        assert site.worker("south").status == "active"
    finally:
        mend(north)
    eventually(lambda: site.worker("north").status == "active")
    eventually(lambda: site.running() == {"web": ["south"]} and site.containers(north) == 0)
    eventually(lambda: alerts(site)[-1] == "worker_recovered")
    sys.stdout.write(f"{trouble}: unhealthy after {unhealthy_after:.1f} s, elsewhere after {elsewhere_after:.1f} s\n")


def test_the_engine_of_the_manager_is_our_trouble_and_marks_nobody(quick_site: Site) -> None:
    site, manager = quick_site, quick_site.swarm.manager
    monitor = site.monitor()
    site.until_active("north", "south")
    site.deploy("web", to="north")

    def seen() -> list[Worker]:
        return [site.worker(name) for name in ("north", "south")]

    signal(manager, "STOP")
    try:
        monitor.until("action=engine_away")
        beats(site, "north", GRACE_SECONDS)
        assert {worker.status for worker in seen()} == {"active"}
    finally:
        signal(manager, "CONT")
    monitor.until("action=engine_answers")
    beats(site, "north", 5)
    assert {worker.status for worker in seen()} == {"active"}
    assert site.running() == {"web": ["north"]}
    assert alerts(site) == []


def test_an_engine_that_was_stopped_or_whose_group_was_made_anew_is_known_again(host: Host, console: Console) -> None:
    """The socket is of another group than the one that the agent has: it ends, and its unit gives it the present
    one."""
    script = console.ask("workers", "install-script", "--name", "web-1")
    host.run("sh", "-c", "sh 2>&1", stdin=script, timeout_seconds=300)
    away = "SELECT engine_away_since FROM container_workers"
    eventually(lambda: console.connection.execute(away).fetchone() == (None,) and console.heard() != [(None,)])

    host.run("systemctl", "stop", "docker.socket", "docker.service")
    eventually(lambda: console.connection.execute(away).fetchone() != (None,))
    host.run("systemctl", "start", "docker.socket", "docker.service")
    eventually(lambda: console.connection.execute(away).fetchone() == (None,))

    def agent() -> str:
        return host.run("systemctl", "show", "--property", "MainPID", "skypanel-worker")

    before = agent()
    host.run("groupmod", "--gid", "4242", "docker")
    host.run("systemctl", "restart", "docker.socket", "docker.service")
    eventually(lambda: "action=engine_denied" in host.run("journalctl", "--unit", "skypanel-worker"))
    eventually(lambda: console.connection.execute(away).fetchone() == (None,) and agent() != before)
