"""The install script on booted hosts: whatever they have already, they become workers of the swarm and report."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple
from uuid import uuid4

import pytest

from skyctl.installer import InstallScript, render
from skyctl.model import SwarmJoin
from skyctl.swarm import SwarmEngine
from tests.helpers import eventually

from .commands import CommandFailed
from .machines import Host, Node
from .network import Network
from .peer import Peer, Told

INSTALL_SECONDS = 300


class Joining(NamedTuple):
    """A host, the API by which it reaches its manager, and what its script is made from."""

    host: Host
    api: Peer
    invitation: InstallScript

    def install(self, script: str = "") -> str:
        """Run its script, or another, as somebody does who pipes it into the host's shell; what it tells."""
        given = script or render(self.invitation)
        return self.host.run("sh", "-c", "sh 2>&1", stdin=given, timeout_seconds=INSTALL_SECONDS)

    def active(self) -> bool:
        return self.host.run("systemctl", "is-active", "skypanel-worker").strip() == "active"

    def process(self, unit: str) -> str:
        return self.host.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()

    def wait_for(self, *, registration: bool) -> Told:
        """What the manager hears from this very host."""
        token = self.invitation.token
        return self.api.wait_for(lambda told: told.token == token and told.registers == registration)


def joining(host: Host, api: Peer, join: SwarmJoin | None) -> Joining:
    token = f"token-of-{host.name}"
    invitation = InstallScript(str(uuid4()), token, api.url, heartbeat_interval_seconds=1, insecure=True, join=join)
    return Joining(host, api, invitation)


@pytest.fixture(scope="module")
def api(lab: Network) -> Iterator[Peer]:
    with Peer(lab.gateway) as peer:
        yield peer


@pytest.fixture(scope="module")
def fresh(lab: Network, manager: Node, api: Peer) -> Iterator[Joining]:
    """A host that had neither Docker nor Python, and a manager with a swarm; the script has run once."""
    with Host(lab, "fresh", fresh=True) as host:
        worker = joining(host, api, SwarmEngine(manager.engine, None).worker_join())
        worker.install()
        yield worker


@pytest.fixture(scope="module")
def plain(lab: Network, api: Peer) -> Iterator[Joining]:
    """A host that has Docker, running, and Python, and a manager without a swarm; the script has not run yet."""
    with Host(lab, "plain", fresh=False) as host:
        yield joining(host, api, None)


def test_on_a_fresh_host_the_agent_is_active(fresh: Joining) -> None:
    assert fresh.active()
    assert fresh.host.run("systemctl", "is-enabled", "skypanel-worker").strip() == "enabled"


def test_only_root_reads_the_token(fresh: Joining) -> None:
    config, token = "/etc/skypanel-worker/config.json", fresh.invitation.token
    assert fresh.host.run("stat", "--format", "%a %U", config).strip() == "600 root"
    assert token in fresh.host.run("cat", config)
    written = fresh.host.run("sh", "-c", "journalctl; cat /var/log/skypanel-worker-install.log /proc/*/cmdline || true")
    assert "skyagent" in written
    assert token not in written


def test_the_manager_hears_a_registration_and_heartbeats(fresh: Joining) -> None:
    registered = fresh.wait_for(registration=True)
    assert (registered.body["hostname"], registered.body["ipAddress"]) == (fresh.host.name, fresh.host.address)
    assert fresh.wait_for(registration=False).body["containerCount"] == 0


def test_the_host_is_a_node_of_the_swarm(fresh: Joining, manager: Node) -> None:
    node_id = fresh.host.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip()
    form = "{{.Description.Hostname}} {{.Spec.Role}} {{.Status.State}}"
    described = manager.run("docker", "node", "inspect", "--format", form, node_id).strip()
    assert described == f"{fresh.host.name} worker ready"


def test_a_second_run_changes_nothing(fresh: Joining) -> None:
    before = [fresh.process(unit) for unit in ("skypanel-worker", "docker")]
    told = fresh.install()
    assert "no change" in told
    assert "this host is in a swarm already" in told
    assert [fresh.process(unit) for unit in ("skypanel-worker", "docker")] == before


def test_an_agent_that_dies_comes_back(fresh: Joining) -> None:
    first = fresh.process("skypanel-worker")
    fresh.host.run("systemctl", "kill", "--signal", "KILL", "skypanel-worker")
    assert eventually(lambda: fresh.process("skypanel-worker") not in {first, "0"})
    fresh.api.forget()
    fresh.wait_for(registration=False)


def test_a_damaged_script_is_refused_before_it_installs_anything(plain: Joining) -> None:
    head, start, tail = render(plain.invitation).partition("\nH4sI")
    with pytest.raises(CommandFailed, match="error: the agent in this script is damaged"):
        plain.install(f"{head}{start}A{tail}")
    assert plain.host.run("sh", "-c", "ls /opt/skypanel-worker/venv /etc/skypanel-worker 2>/dev/null || true") == ""


def test_what_a_host_has_already_is_used_and_an_engine_that_runs_not_restarted(plain: Joining) -> None:
    before = plain.process("docker")
    told = plain.install()
    assert "installing Docker" not in told
    assert "installing Python" not in told
    assert plain.process("docker") == before
    plain.wait_for(registration=False)


def test_without_a_swarm_the_command_to_join_one_is_told(plain: Joining) -> None:
    assert "run here the command that `docker swarm join-token worker` prints" in plain.install()


def test_a_host_that_the_swarm_refuses_says_so_and_reports_all_the_same(plain: Joining, manager: Node) -> None:
    refused = replace(plain.invitation, join=SwarmJoin(f"{manager.address}:2377", "SWMTKN-1-wrong"))
    with pytest.raises(CommandFailed) as caught:
        plain.install(render(refused))
    assert "invalid join token" in str(caught.value)
    assert str(caught.value).endswith("hint: remove the cause and run this script again")
    assert plain.active()
