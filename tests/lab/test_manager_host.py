"""`skyctl systemd install` on a booted host: serve and monitor as its services, with a database elsewhere."""

import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from skyctl.host.postgres import EmbeddedPostgres
from tests.conftest import SECRET
from tests.support.helpers import add_worker, admin_token, eventually

from . import images
from .commands import CommandFailed
from .desk import everything_by_a_context
from .machines import Host
from .manager_host import INSTALL_SECONDS, MONITOR, SERVE, ManagerHost, install
from .network import Network
from .site import IDLE

SMALL = ("--cpu", "0.2", "--memory", "16M", "--disk", "0.001", "--endpoint-mode", "dnsrr")
PORT = 5432
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
        install(booted)
        booted.run("docker", "swarm", "init", "--advertise-addr", booted.address)
        booted.run("docker", "import", *images.variants()[images.WEB], "-", images.WEB, stdin=images.busybox())
        yield ManagerHost(booted)


@pytest.fixture
def elsewhere(lab: Network) -> Iterator[Host]:
    """A second host: Python and the wheel, and neither Docker nor a database."""
    with Host(lab, "desk", fresh=True) as booted:
        apt = "apt-get update -qq && apt-get install -yqq --no-install-recommends python3-venv >/dev/null"
        booted.run("sh", "-c", apt, timeout_seconds=INSTALL_SECONDS)
        install(booted)
        yield booted


def test_the_services_of_a_manager_host(
    host: ManagerHost, elsewhere: Host, address: str, connection: psycopg.Connection
) -> None:
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
    _who_may_ask_by_the_socket(host)
    connection.execute(IDLE)
    everything_by_a_context(host, elsewhere)
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


def _who_may_ask_by_the_socket(host: ManagerHost) -> None:
    """Root and the group of `serve`, without a setting or a token; nobody else."""
    run = host.host.run
    run("sh", "-ec", "useradd --groups skyctl ann; useradd bob")
    as_user = ("env", "-i", "HOME=/nonexistent", "PATH=/usr/local/bin:/usr/bin:/bin", "setpriv", "--init-groups")
    assert "way    the socket /run/skyctl-serve/serve.sock" in run(*as_user[:4], "skyctl", "version")
    for user, code in (("root", 0), ("ann", 0), ("bob", 5)):
        ids = (f"--reuid={user}", f"--regid={user}")
        told = run(*as_user, *ids, "sh", "-c", "skyctl workers list 2>&1; echo $?")
        assert told.endswith(f"{code}\n"), told
    assert "belongs to skyctl" in told


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
