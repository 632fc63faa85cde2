"""The lab's fixtures. What they start is gone at the end, after Ctrl-C and SIGTERM too."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from skyctl.domain.cluster import HealthPolicy
from tests.conftest import Cli, Process, make_context

from .console import Console
from .machines import Host, Node
from .network import Network
from .peer import Peer
from .site import Site
from .swarm import Swarm

# as the settings of the site's processes say
ANY_LOAD = HealthPolicy(cpu_percent=100, memory_percent=100, disk_percent=100)
# What the lab calls, and the Debian package that has it.
PACKAGES = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "debootstrap": "debootstrap",
    "docker": "docker.io",
    "docker-init": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "htpasswd": "apache2-utils",
    "ip": "iproute2",
    "iptables": "iptables",
    "systemd-nspawn": "systemd-container",
    "systemd-socket-activate": "systemd",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the lab cannot be, say why in one line; in CI that is a failure."""
    reason = _missing()
    if reason and os.environ.get("CI") == "true":
        raise pytest.UsageError(reason)
    for item in items:
        if reason and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason=reason))


def _missing() -> str | None:
    if sys.platform != "linux":
        return f"the lab needs Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "the lab needs root"
    packages = sorted({package for command, package in PACKAGES.items() if not shutil.which(command)})
    return f"the lab needs: apt-get install {' '.join(packages)}" if packages else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what the swarm runs at that moment."""
    report = yield
    swarm: Any = getattr(item, "funcargs", {}).get("swarm")
    if report.when == "call" and report.failed and swarm:
        report.sections.append(("the swarm", swarm.picture()))
    return report


@pytest.fixture(scope="session")
def lab() -> Iterator[Network]:
    """The network that machines are wired to."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: with every finalizer
    network = Network()
    try:
        yield network
    finally:
        network.close()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def manager(lab: Network) -> Iterator[Node]:
    """A node that manages a swarm."""
    with Node(lab, "manager") as node:
        node.run("docker", "swarm", "init", "--advertise-addr", node.address)
        yield node


@pytest.fixture(scope="session")
def joined(lab: Network, manager: Node) -> Iterator[Swarm]:
    """The manager's swarm with two workers."""
    with Node(lab, "north") as north, Node(lab, "south") as south:
        yield Swarm(manager, [north, south])


@pytest.fixture
def swarm(joined: Swarm) -> Swarm:
    """The same, without services."""
    joined.clear()
    return joined


@pytest.fixture
def site(
    swarm: Swarm, database_url: str, connection: psycopg.Connection, start: Callable[..., Process]
) -> Iterator[Site]:
    """The lab's workers, north and south, with their agents; a monitor is started by whoever needs one."""
    context = make_context(database_url, engine=swarm.engine, health=ANY_LOAD)
    site = Site(swarm, context, connection, start)
    yield site
    site.close()
    context.db.close()


@pytest.fixture
def peer(lab: Network) -> Iterator[Peer]:
    """An HTTP peer that every machine of the lab reaches."""
    with Peer(lab.gateway) as peer:
        yield peer


@pytest.fixture
def host(lab: Network) -> Iterator[Host]:
    with Host(lab, "original", fresh=False) as host:
        yield host


@pytest.fixture
def console(
    lab: Network, cli: Cli, start: Callable[..., Process], connection: psycopg.Connection, environment: dict[str, str]
) -> Console:
    """It serves at the lab's gateway, over TLS of its own. A host that is silent for two heartbeats may have been
    rebooted: so long no machine keeps one waiting that is merely busy."""
    environment["WORKER_HEARTBEAT_INTERVAL"] = "15"
    done = cli("tls", "init", "--host", lab.gateway)
    assert done.returncode == 0, done.stderr
    serving = start("serve", "--host", lab.gateway, "--port", "0")
    environment["SKYCTL_API_URL"] = serving.until("listening on ").split("listening on ")[1].strip()
    assert environment["SKYCTL_API_URL"].startswith("https://")
    return Console(cli, connection)
