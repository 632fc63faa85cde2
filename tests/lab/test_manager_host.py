"""`skyctl systemd install` on a booted host: serve and monitor as its services, with a database elsewhere."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from skyctl.host.postgres import EmbeddedPostgres
from tests.conftest import SECRET
from tests.support.helpers import add_worker, admin_token, eventually

from . import images
from .commands import CommandFailed
from .machines import Host
from .network import Network

ROOT = Path(__file__).parents[2]
SERVE, MONITOR = "skyctl-serve", "skyctl-monitor"
SMALL = ("--cpu", "0.2", "--memory", "16M", "--disk", "0.001", "--endpoint-mode", "dnsrr")
INSTALL_SECONDS = 300
PORT = 5432
# What the host has no curl for: an answer's status and body, and with a token as the administrator.
ASK = """
import ssl, sys, urllib.request
url, method, token = sys.argv[1:]
trust = ssl.create_default_context(cafile="/var/lib/skyctl/tls/ca.pem")
request = urllib.request.Request(url, method=method, headers={"Authorization": "Bearer " + token})
with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
    print(answer.status, answer.read().decode())
"""
FORMER = """
cd /var/lib
mv skyctl-monitor/tls/ca.key skyctl/tls
rm -r skyctl-monitor
userdel skyctl-monitor
chown --recursive skyctl:skyctl skyctl
chmod 755 skyctl
cat /etc/skyctl/monitor.env >>/etc/skyctl/skyctl.env
rm /etc/skyctl/monitor.env
sed -i -e 's/^\\(User\\|Group\\)=.*/\\1=skyctl/' -e 's,skyctl/monitor.env,skyctl/skyctl.env,' \\
  -e 's,lib/skyctl-monitor,lib/skyctl,' -e 's/^StateDirectory=.*/StateDirectory=skyctl/' -e '/^InaccessiblePaths/d' \\
  -e 's/StateDirectoryMode.*/StateDirectoryMode=0755/' \\
  /etc/systemd/system/skyctl-*.service
systemctl daemon-reload
systemctl start skyctl-serve skyctl-monitor
"""
OPERATIONS = ROOT / "docs/operations.md"


class ManagerHost:
    """A host on which skyctl is installed as the documents say."""

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def url(self) -> str:
        return f"https://{self.host.address}:8642"

    def skyctl(self, *words: str) -> str:
        """A command of skyctl with the services' settings, as the documents say it is given."""
        settings = "set -a; . /etc/skyctl/skyctl.env; . /etc/skyctl/monitor.env; "
        command = ("sh", "-c", settings + 'skyctl "$@" 2>&1', "sh", *words)
        return self.host.run(*command, timeout_seconds=INSTALL_SECONDS)

    def documented(self) -> str:
        """Run what the documents say from the settings on, until the services run; what that prints."""
        text = OPERATIONS.read_text()
        lines = text[text.index("    set -a;") : text.index("    skyctl doctor\n")]
        lines = lines.replace("manager.example.com", self.host.address)
        return self.host.run("sh", "-e", stdin=lines, timeout_seconds=INSTALL_SECONDS)

    def ask(self, method: str, path: str, token: str = "") -> str:
        return self.host.run("python3", "-c", ASK, self.url + path, method, token)

    def is_well(self) -> bool:
        """Whether the doctor finds nothing that failed."""
        try:
            self.skyctl("doctor")
        except CommandFailed:
            return False
        return True

    def show(self, unit: str, what: str) -> str:
        return self.host.run("systemctl", "show", "--property", what, "--value", unit).strip()

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz").startswith("200 ")
        except CommandFailed:
            return False

    def exposure(self, unit: str) -> float:
        """How exposed systemd takes a service for, from 0 to 10."""
        told = re.search(
            r"Overall exposure level for \S+: ([0-9.]+)", self.host.run("systemd-analyze", "security", unit)
        )
        assert told
        return float(told[1])

    def survives(self, unit: str, *kill: str) -> None:
        """End its process, and see that the service runs again in another one."""
        before = self.show(unit, "MainPID")
        self.host.run("systemctl", "kill", "--kill-whom=main", *kill, unit)
        eventually(
            lambda: self.show(unit, "MainPID") not in {before, "0"} and self.show(unit, "ActiveState") == "active"
        )


@pytest.fixture
def address(lab: Network, postgres: EmbeddedPostgres, database_url: str) -> Iterator[str]:
    """The test's database, at an address that hosts reach."""
    relay = ["systemd-socket-activate", f"--listen={lab.gateway}:{PORT}", "/lib/systemd/systemd-socket-proxyd"]
    with subprocess.Popen([*relay, str(postgres.sockets / ".s.PGSQL.5432")], stderr=subprocess.DEVNULL) as process:
        yield f"postgresql://postgres@{lab.gateway}:{PORT}{urlsplit(database_url).path}"
        process.kill()


@pytest.fixture
def host(lab: Network) -> Iterator[ManagerHost]:
    """A host with Docker, the manager of a swarm, into which this very skyctl was installed."""
    with Host(lab, "head", fresh=False) as booted:
        wheels = booted.folder / "root/srv"
        build = [*("pip", "wheel", "--quiet", "--no-deps"), "--wheel-dir", str(wheels), str(ROOT)]
        subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
        shutil.copy(ROOT / "constraints.txt", wheels)
        booted.run("python3", "-m", "venv", "/opt/skyctl", timeout_seconds=INSTALL_SECONDS)
        install = (
            "/opt/skyctl/bin/pip install --quiet --no-compile --constraint /srv/constraints.txt /srv/skyctl-*.whl 2>&1"
        )
        booted.run("sh", "-c", install, timeout_seconds=INSTALL_SECONDS)
        booted.run("ln", "-s", "/opt/skyctl/bin/skyctl", "/usr/local/bin/skyctl")
        booted.run("docker", "swarm", "init", "--advertise-addr", booted.address)
        booted.run("docker", "import", *images.variants()[images.WEB], "-", images.WEB, stdin=images.busybox())
        yield ManagerHost(booted)


def test_the_services_of_a_manager_host(host: ManagerHost, address: str, connection: psycopg.Connection) -> None:
    run = host.host.run
    with pytest.raises(CommandFailed, match="SKYCTL_DATABASE_URL is not set"):
        run("skyctl", "systemd", "install")
    settings = {
        "SKYCTL_DATABASE_URL": address,
        "SKYCTL_JWT_SECRET": SECRET,
        "SKYCTL_API_URL": host.url,
        "SKYCTL_SERVE_ARGS": "'--host 0.0.0.0'",
        "SKYCTL_ENCRYPT_NETWORKS": "false",
        "SKYCTL_ALERT_CHANNELS": "json://127.0.0.1:9/secret-of-the-channel",
    }
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    run("sh", "-c", "cat >>/etc/skyctl/skyctl.env", stdin=lines)
    assert "started skyctl-serve.service\nstarted skyctl-monitor.service\n" in host.documented()
    eventually(host.is_well)
    assert run("skyctl", "systemd", "install") == "no change\n"
    for unit, user in ((SERVE, "skyctl"), (MONITOR, "skyctl-monitor")):
        assert run("systemctl", "is-enabled", unit) == "enabled\n"
        assert host.show(unit, "ActiveState") == "active"
        assert host.show(unit, "User") == user
        assert run("stat", "--format=%U", f"/proc/{host.show(unit, 'MainPID')}") == f"{user}\n"
        assert host.exposure(unit) <= 2.0
    eventually(host.is_ready)
    _they_are_apart(host)
    _they_reach_the_engine(host, connection)
    for unit in (SERVE, MONITOR):
        host.survives(unit, "--signal=KILL")
    eventually(host.is_ready)
    _a_frozen_monitor_is_replaced(host)
    _a_stop_is_graceful(host, connection)
    _one_user_becomes_two(host)
    assert SECRET not in run("sh", "-c", "journalctl; cat /proc/*/cmdline /etc/systemd/system/skyctl-*")
    run("skyctl", "systemd", "install", "--uninstall")
    assert run("sh", "-c", "systemctl list-unit-files 'skyctl*' --no-legend; getent passwd skyctl || true") == ""


def _they_are_apart(host: ManagerHost) -> None:
    """Serve's user reaches neither the engine nor the authority, and the monitor's not the key of serve."""
    listed = host.host.run(
        "sh", "-c", "ls -I changes.lock /var/lib/skyctl/tls; echo; ls /var/lib/skyctl-monitor/tls"
    ).split("\n\n")
    assert [names.split() for names in listed] == [
        ["ca.pem", "server.key", "server.pem"],
        ["ca.key", "ca.pem", "names"],
    ]
    modes = host.host.run("stat", "--format=%a %U", "/var/lib/skyctl", "/var/lib/skyctl-monitor")
    assert modes.splitlines() == ["700 skyctl", "700 skyctl-monitor"]
    within = ("nsenter", f"--target={host.show(SERVE, 'MainPID')}", "--mount", "--")
    for user, path in (("skyctl", "/run/docker.sock"), ("skyctl", "/var/lib/skyctl-monitor/tls/ca.key")):
        with pytest.raises(CommandFailed):
            host.host.run("setpriv", f"--reuid={user}", "--init-groups", "test", "-r", path)
        with pytest.raises(CommandFailed):
            host.host.run(*within, "setpriv", f"--reuid={user}", "--init-groups", "test", "-r", path)
    environment = f"/proc/{host.show(SERVE, 'MainPID')}/environ"
    assert "secret-of-the-channel" not in host.host.run("cat", environment)
    assert "secret-of-the-channel" in host.host.run("cat", f"/proc/{host.show(MONITOR, 'MainPID')}/environ")


def _one_user_becomes_two(host: ManagerHost) -> None:
    """What an installation of the version before has, whose services were one user, becomes one of two."""
    run = host.host.run
    run("sh", "-ec", FORMER, timeout_seconds=INSTALL_SECONDS)
    before = run("sha256sum", "/var/lib/skyctl/tls/ca.key").split()[0]
    done = run("skyctl", "systemd", "install", timeout_seconds=INSTALL_SECONDS)
    assert "made the system user skyctl-monitor\n" in done
    assert "took the authority's key out of /var/lib/skyctl\n" in done
    assert run("sha256sum", "/var/lib/skyctl-monitor/tls/ca.key").split()[0] == before
    eventually(host.is_ready)
    eventually(host.is_well)
    _they_are_apart(host)


def _they_reach_the_engine(host: ManagerHost, connection: psycopg.Connection) -> None:
    """`serve` has the swarm's token for an invitation; `monitor` finds that the engine runs what was deployed."""
    script = host.ask("POST", "/api/workers/generate-script", admin_token(SECRET, connection))
    token = host.host.run("docker", "swarm", "join-token", "--quiet", "worker").strip()
    assert token in script
    node_id = host.host.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip()
    capacity = '{"cpuCores": 8, "memoryMb": 8192, "diskGb": 100}'
    add_worker(connection, name="head", status="active", swarm_node_id=node_id, capacity=capacity)
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    host.skyctl("workers", "confirm", "head", "--yes")
    eventually(lambda: "not confirmed" not in host.skyctl("workers", "show", "head"))
    assert "web runs on head" in host.skyctl("services", "deploy", "web", "--image", images.WEB, *SMALL, "--wait")


def _a_frozen_monitor_is_replaced(host: ManagerHost) -> None:
    folder = f"/etc/systemd/system/{MONITOR}.service.d"
    host.host.run("install", "-D", "/dev/stdin", f"{folder}/soon.conf", stdin="[Service]\nWatchdogSec=1\n")
    host.host.run("systemctl", "daemon-reload")
    host.host.run("systemctl", "restart", MONITOR)
    host.survives(MONITOR, "--signal=STOP")
    host.host.run("rm", "-r", folder)
    host.host.run("systemctl", "daemon-reload")
    host.host.run("systemctl", "restart", MONITOR)  # or a slow machine is taken for a frozen monitor


def _a_stop_is_graceful(host: ManagerHost, connection: psycopg.Connection) -> None:
    eventually(lambda: "leads term" in host.show(MONITOR, "StatusText"))
    for unit in (SERVE, MONITOR):
        host.host.run("systemctl", "stop", unit)
        assert (host.show(unit, "Result"), host.show(unit, "ExecMainStatus")) == ("success", "0")
    assert "action=stopped" in host.host.run("journalctl", "--unit", MONITOR, "--lines=3")
    assert connection.execute("SELECT expires_at <= now() FROM monitor_leases").fetchone() == (True,)
