"""The install script on booted hosts: whatever they have already, they become workers of the swarm and report."""

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from skyctl.domain.engine import SwarmJoin
from skyctl.host import interpreter
from skyctl.installer import InstallScript, bundle, render
from skyctl.swarm import SwarmEngine
from tests.support.certificates import authority, server_context
from tests.support.helpers import eventually, need

from .commands import CommandFailed
from .machines import Host, Node
from .network import Network
from .peer import Peer, Told

INSTALL_SECONDS = 300
YEAR = dt.timedelta(days=365)
# The web panel's own agent, as its installer leaves it, and once more under another name; node is a stand-in.
PANELS_AGENT = """
printf '#!/bin/sh\\nsleep infinity\\n' >/usr/bin/node && chmod 755 /usr/bin/node
for place in /opt/skypanel-worker:skypanel-worker /srv/panel:panel; do
  folder=${place%:*}
  mkdir -p $folder
  cat >$folder/config.json <<CONFIG
{
  "apiUrl": "https://panel.example",
  "authToken": "open",
  "workerId": "$1"
}
CONFIG
  echo 'new URL(`${config.apiUrl}/api/workers/${config.workerId}/heartbeat`)' >$folder/worker-agent.js
  cat >/etc/systemd/system/${place#*:}.service <<UNIT
[Service]
ExecStart=/usr/bin/node $folder/worker-agent.js
[Install]
WantedBy=multi-user.target
UNIT
done
systemctl daemon-reload
systemctl enable --quiet panel
systemctl restart panel skypanel-worker
"""
# What a host is made of, but for what the kernel, the package manager and the journal keep.
STATE = """
find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /dev \
    -o -path /var/lib/apt -o -path /var/lib/dpkg \
    -o -path /var/cache -o -path /var/log/journal -o -path /var/log/apt \
    -o -path /var/lib/docker -o -path /var/lib/containerd \
    -o -path /var/lib/systemd \\) -prune -o -printf 'file %p %m %U\\n' | sort
getent passwd | sed 's/^/user /'
getent group | sed 's/^/group /'
systemctl list-unit-files --no-legend --plain | sed 's/^/unit /; s/ *$//'
dpkg-query --show --showformat='package ${Package} ${db:Status-Status}\\n'
"""

# What Docker and the packages that it needs make when they are installed and started; no list of theirs names it.
MADE_BY_DOCKER = (
    r"/\S*(docker|containerd|[6bp]tables)|/etc/(cni|ssl/certs|hosts|networks|systemd/system/sockets.target.wants)\b"
)


class Joining(NamedTuple):
    """A host, the API by which it reaches its manager, and what its script is made from."""

    host: Host
    api: Peer
    invitation: InstallScript

    def install(self, script: str = "", *arguments: str, inside: str = "") -> str:
        """Run its script, or another, as somebody does who pipes it into the host's shell; what it tells. `inside`:
        what runs the shell."""
        command = f"{inside} sh -s -- {' '.join(arguments)} 2>&1"
        given = script or render(self.invitation)
        return self.host.run("sh", "-c", command, stdin=given, timeout_seconds=INSTALL_SECONDS)

    def active(self) -> bool:
        return self.host.run("systemctl", "is-active", "skypanel-worker").strip() == "active"

    def process(self, unit: str) -> str:
        return self.host.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()

    def state(self) -> set[str]:
        """All that is on the host: files, users, groups, units, packages."""
        return set(self.host.run("sh", "-c", STATE).splitlines())

    def wait_for(self, *, registration: bool) -> Told:
        """What the manager hears from this very host."""
        token = self.invitation.token
        return self.api.wait_for(lambda told: told.token == token and told.registers == registration)


def joining(host: Host, api: Peer, ca: Path, join: SwarmJoin | None) -> Joining:
    token = f"token-of-{host.name}"
    invitation = InstallScript(
        str(uuid4()),
        token,
        api.url,
        heartbeat_interval_seconds=1,
        insecure=False,
        join=join,
        ca_certificate=ca.read_text(),
    )
    return Joining(host, api, invitation)


@pytest.fixture(scope="module")
def certificate(lab: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority(tmp_path_factory.mktemp("tls"), "manager", lab.gateway)


@pytest.fixture(scope="module")
def api(lab: Network, certificate: Path) -> Iterator[Peer]:
    with Peer(lab.gateway, server_context(certificate)) as peer:
        yield peer


@pytest.fixture(scope="module")
def bare(lab: Network, manager: Node, api: Peer, certificate: Path) -> Iterator[Joining]:
    """A host that has neither Docker nor Python, and a manager with a swarm; the script has not run yet."""
    engine = SwarmEngine(manager.engine, None)
    with Host(lab, "fresh", fresh=True) as host:
        yield joining(host, api, certificate, engine.worker_join())
    for node in engine.observe(()).nodes.values():
        if node.hostname == "fresh":  # the manager's swarm is that of other files, too
            engine.remove_node(node.id)


@pytest.fixture(scope="module")
def before(bare: Joining) -> set[str]:
    """What is on that host at first."""
    return bare.state()


@pytest.fixture(scope="module")
def fresh(bare: Joining, before: set[str]) -> Joining:
    """The same, the script having run once."""
    del before
    bare.install()
    return bare


@pytest.fixture(scope="module")
def plain(lab: Network, api: Peer, certificate: Path) -> Iterator[Joining]:
    """A host that has Docker, running, and Python, and reaches nothing but a manager without a swarm; the script has
    not run."""
    with Host(lab, "plain", fresh=False) as host:
        host.run("ip", "route", "delete", "default")
        yield joining(host, api, certificate, None)


class Trouble(NamedTuple):
    """What is wrong, the code by which the script refuses, and how that comes about."""

    code: int
    says: str
    inside: str = ""
    invitation: str = "good"
    stranger: bool = False
    later: dt.timedelta = dt.timedelta()
    away: bool = False


HIDE = "unshare --mount sh -c 'mount -t tmpfs -o size=1m tmpfs {} && exec \"$@\"' sh"
TROUBLES = {
    "no systemd": Trouble(15, "systemd does not run here", inside=HIDE.format("/run/systemd")),
    "another distribution": Trouble(
        13,
        "'plan9' is not supported",
        inside="unshare --mount sh -c "
        "'echo ID=plan9 >/run/os && mount --bind /run/os /etc/os-release && exec \"$@\"' sh",
    ),
    "full disk": Trouble(16, "/opt has 1 MiB free", inside=HIDE.format("/opt")),
    "wrong CA": Trouble(22, "its certificate is not trusted", stranger=True),
    "a year off": Trouble(20, "this host's clock shows ", later=YEAR),
    "manager down": Trouble(21, "the manager does not answer at https://", away=True),
    "expired": Trouble(24, "this invitation has expired", invitation="expired"),
    "second use": Trouble(25, "this invitation has been used by another host", invitation="used"),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_what_is_in_the_way_is_said_before_anything_is_changed(
    bare: Joining, before: set[str], lab: Network, tmp_path: Path, trouble: Trouble
) -> None:
    invitation = bare.invitation
    with ExitStack() as stack:
        if trouble.stranger:
            invitation = replace(invitation, ca_certificate=authority(tmp_path, "stranger", lab.gateway).read_text())
        if trouble.later:
            when = dt.datetime.now() + trouble.later
            made = authority(tmp_path, "later", lab.gateway, need("faketime"), f"{when:%Y-%m-%d %H:%M:%S}")
            seconds = int(trouble.later.total_seconds())
            ahead = stack.enter_context(Peer(lab.gateway, server_context(made), ahead_seconds=seconds))
            invitation = replace(invitation, ca_certificate=made.read_text(), api_url=ahead.url)
        if trouble.away:
            invitation = replace(invitation, api_url=f"https://{lab.gateway}:9")
        bare.api.invitation = trouble.invitation
        stack.callback(setattr, bare.api, "invitation", "good")
        with pytest.raises(CommandFailed) as caught:
            bare.install(render(invitation), inside=trouble.inside)
    told = str(caught.value)
    assert f"ended with {trouble.code}\n" in told
    assert f"error W{trouble.code}: " in told
    assert trouble.says in told
    assert "\nhint: " in told
    assert bare.state() == before


def test_a_dry_run_changes_nothing(bare: Joining, before: set[str]) -> None:
    told = bare.install("", "--dry-run")
    assert "would install Docker: docker.io" in told
    assert bare.state() == before


def test_on_a_fresh_host_the_agent_is_active(fresh: Joining) -> None:
    assert fresh.active()
    assert fresh.host.run("systemctl", "is-enabled", "skypanel-worker").strip() == "enabled"


def test_only_root_reads_the_token(fresh: Joining) -> None:
    config, token = "/etc/skypanel-worker/config.json", fresh.invitation.token
    assert fresh.host.run("stat", "--format", "%a", config).strip() == "600"
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


def test_uninstalled_nothing_of_ours_is_left(fresh: Joining, before: set[str]) -> None:
    """Docker stays, with what it needs; and it was not restarted."""
    docker = fresh.process("docker")
    told = fresh.host.run("sh", "-c", "skypanel-worker-uninstall 2>&1")
    assert f"skyctl workers remove {fresh.invitation.worker_id}" in told
    assert fresh.process("docker") == docker
    assert fresh.host.run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}").strip() == "inactive"
    after = fresh.state()
    assert sorted(before - after) == []
    simulated = fresh.host.run("apt-get", "--simulate", "purge", "--autoremove", "docker.io", "ca-certificates")
    dockers = re.findall(r"^Purg (\S+)", simulated, re.M)
    theirs = set(fresh.host.run("dpkg", "--listfiles", *dockers).splitlines())
    packages = "|".join(map(re.escape, dockers))
    others = re.compile(rf"package ({packages}) |group docker:|unit (docker|containerd)\.|file ({MADE_BY_DOCKER})")
    left = (each for each in after - before if not others.match(each))
    left = (each for each in after - before if not others.match(each))
    assert sorted(each for each in left if each.removeprefix("file ").rsplit(" ", 2)[0] not in theirs) == []


def test_a_damaged_script_is_refused_before_it_installs_anything(plain: Joining) -> None:
    head, start, tail = render(plain.invitation).partition("\nH4sI")
    with pytest.raises(CommandFailed, match="error W40: the agent in this script is damaged"):
        plain.install(f"{head}{start}A{tail}")
    assert plain.host.run("sh", "-c", "ls /opt/skypanel-worker/venv /etc/skypanel-worker 2>/dev/null || true") == ""


def test_a_second_one_waits_for_the_first_to_end(plain: Joining) -> None:
    (plain.host.folder / "root/root/script").write_text(render(plain.invitation))
    lock = "/run/skypanel-worker-install"
    held = f"mkdir -p {lock}; flock {lock} sh -c 'echo held; sleep 2'"
    held += " | { read held; sh /root/script --dry-run 2>&1; }"
    told = plain.host.run("sh", "-c", held)
    assert told.startswith("skypanel-worker: another run of this script is at work on this host: waiting")
    assert told.endswith("skypanel-worker: nothing was changed\n")


def test_a_host_that_reaches_its_manager_alone_installs_from_a_bundle_and_its_engine_is_not_restarted(
    plain: Joining,
) -> None:
    folder = plain.host.folder / "root/root/bundle"
    folder.mkdir()
    bundle.collect(folder, ["x86_64"], None, interpreter.command("pip"))
    bundle.seal(folder, render(plain.invitation))
    before = plain.process("docker")
    told = plain.host.run(
        "sh", "-c", "sh /root/bundle/install.sh --offline /root/bundle 2>&1", timeout_seconds=INSTALL_SECONDS
    )
    assert "the manager has confirmed a heartbeat" in told
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
    assert "error W50: this host has not joined the swarm\nhint: remove the cause and run this script again" in str(
        caught.value
    )
    assert plain.active()


def test_the_panels_agent_is_stopped_and_taken_away(plain: Joining) -> None:
    """The host is a worker by our agent, over whose unit the panel's installer has written its own."""
    runs = ("sh", "-c", "grep -lz [w]orker-agent.js /proc/[0-9]*/cmdline 2>/dev/null || true")
    plain.host.run("sh", "-ec", PANELS_AGENT, "sh", plain.invitation.worker_id)
    assert len(plain.host.run(*runs).split()) == 2
    told = plain.install()
    for path in ("/opt/skypanel-worker/config.json", "/srv/panel/config.json", "/etc/systemd/system/panel.service"):
        assert f"removed {path} of the web panel's former agent" in told
    assert plain.active()
    assert plain.host.run(*runs) == ""
    left = "ls /opt/skypanel-worker /srv; systemctl list-unit-files --no-legend 'panel*' || true"
    assert plain.host.run("sh", "-c", left).split() == ["/opt/skypanel-worker:", "applied", "run", "venv", "/srv:"]
    plain.api.forget()
    plain.wait_for(registration=False)
