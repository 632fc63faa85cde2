"""What serve's user cannot reach: the monitor's memory and files, the engine, the authority's key. And what works all
the same: invitations, registrations, removals, a renewed certificate."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from skyctl import host
from skyctl.domain.errors import SkyctlError
from skyctl.host.certificates import Certificates
from skyctl.host.postgres import EmbeddedPostgres
from tests.api.test_tls import ask, trusting
from tests.conftest import SECRET, Process, clean_environment
from tests.support.docker_stub import Answer, engine
from tests.support.helpers import PATIENCE_SECONDS, add_worker, admin_token, bearer, eventually, registration

SERVE, MONITOR, DOCKER = 61_001, 61_002, 61_003  # users and a group that nobody has
JOIN_TOKEN = "SWMTKN-1-of-this-test"
CHANNEL = "json://127.0.0.1:9/secret-of-the-channel"
NODE = "node-of-a-worker"
SWARM = {"ControlAvailable": True, "NodeID": "head", "LocalNodeState": "active"}
NOW = datetime.now(UTC)
# Run as serve's user: tries each, and says what it could do.
TRY = """
import os, socket, sys
pid, folder, engine = sys.argv[1:]
def connect():
    with socket.socket(socket.AF_UNIX) as one: one.connect(engine)
attempts = {
    "environment": lambda: open(f"/proc/{pid}/environ", "rb").read(1),
    "memory": lambda: open(f"/proc/{pid}/mem", "rb").read(0),
    "folder": lambda: os.listdir(folder),
    "authority": lambda: open(f"{folder}/tls/ca.key").read(),
    "engine": connect,
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name)
    except PermissionError:
        pass
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")


@dataclass
class Swarm:
    """A Docker engine that manages a swarm of one removable node, and remembers its removal."""

    removed: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str) -> Answer:
        """What it says to a request."""
        if method == "DELETE":
            self.removed.append(path)
            return 200, {}
        manager = {"ID": "head", "ManagerStatus": {"Addr": "10.0.0.1:2377"}}
        answers: dict[str, object] = {
            "/info": {"ServerVersion": "20.10", "Swarm": SWARM},
            "/swarm": {"JoinTokens": {"Worker": JOIN_TOKEN}},
            "/nodes/head": manager,
        }
        return 200, answers.get(path, [])


@dataclass
class Manager:
    """The folders of the two services, what their environments have in common, and the engine's socket."""

    data: Path
    environment: dict[str, str]
    swarm: Swarm
    socket: Path
    processes: list[Process]

    @property
    def monitors(self) -> Path:
        """The monitor's folder."""
        return self.data.with_name(f"{self.data.name}-monitor")

    def start(self, user: int, *arguments: str, groups: str = "--clear-groups", **more: str) -> Process:
        """Start skyctl as a user of its own."""
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", groups, sys.executable, "-I", "-m", "skyctl"]
        self.processes.append(Process([*become, *arguments], self.environment | more))
        return self.processes[-1]

    def serve(self) -> tuple[str, Process]:
        """Start the API; its address and its process."""
        process = self.start(SERVE, "serve", "--port", "0", SKYCTL_DATA_DIR=str(self.data))
        return process.until("listening on ").split("listening on ")[1].strip(), process

    def monitor(self) -> Process:
        """Start the monitor, which has the engine's group and a channel."""
        return self.start(
            MONITOR,
            "monitor",
            groups=f"--groups={DOCKER}",
            SKYCTL_DATA_DIR=str(self.monitors),
            DOCKER_HOST=f"unix://{self.socket}",
            SKYCTL_ALERT_CHANNELS=CHANNEL,
        )

    def reached(self, monitor: Process, user: int, groups: str) -> list[str]:
        """What a user can reach of the monitor's."""
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", groups, sys.executable, "-I", "-c", TRY]
        tried = subprocess.run(
            [*become, str(monitor.popen.pid), str(self.monitors), str(self.socket)], capture_output=True, text=True
        )
        assert tried.returncode == 0, tried.stderr
        return tried.stdout.split()

    def certified(self, at: datetime) -> Certificates:
        """Make the authority and a certificate at a time, and give both folders to their users."""
        made = Certificates(self.data)
        made.make(["localhost", "127.0.0.1"], at)
        return made


@pytest.fixture
def manager(
    postgres: EmbeddedPostgres, database_url: str, open_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Manager]:
    place = open_folder / tmp_path_factory.mktemp("two").name
    place.mkdir(mode=0o755)
    data = place / "skyctl"
    for folder, user in ((data, SERVE), (place / "skyctl-monitor", MONITOR)):
        folder.mkdir(mode=0o700)
        os.chown(folder, user, user)
    swarm, processes = Swarm(), list[Process]()
    with socket.socket() as free, ExitStack() as stack:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        relay = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", "/lib/systemd/systemd-socket-proxyd"]
        proxy = stack.enter_context(
            subprocess.Popen([*relay, str(postgres.sockets / ".s.PGSQL.5432")], stderr=subprocess.DEVNULL)
        )
        stack.callback(proxy.kill)
        stack.enter_context(engine(place, swarm.answer))
        (place / "docker.sock").chmod(0o660)
        os.chown(place / "docker.sock", 0, DOCKER)
        url = f"postgresql://postgres@127.0.0.1:{port}{urlsplit(database_url).path}"
        environment = {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET, "SKYCTL_API_URL": "https://localhost"}
        yield Manager(data, environment, swarm, place / "docker.sock", processes)
        for process in processes:
            process.popen.kill()
            process.popen.wait()
            if process.popen.stderr:
                process.popen.stderr.close()


def test_serve_reaches_nothing_of_the_monitors_and_all_works(manager: Manager, connection: psycopg.Connection) -> None:
    connection.execute("DELETE FROM swarm_joins")
    ours = manager.certified(NOW)
    url, _ = manager.serve()
    admin = bearer(admin_token(SECRET, connection))
    with httpx.Client(base_url=url, verify=trusting(ours.authority), timeout=PATIENCE_SECONDS) as client:
        early = client.post("/api/workers/generate-script", headers=admin)
        assert (early.status_code, early.json()["error"]["code"]) == (503, "ENGINE_UNAVAILABLE")
        monitor = manager.monitor()
        eventually(lambda: connection.execute("SELECT token FROM swarm_joins").fetchone() == (JOIN_TOKEN,))

        assert manager.reached(monitor, SERVE, "--clear-groups") == []
        everything = ["environment", "memory", "folder", "authority", "engine"]
        assert manager.reached(monitor, MONITOR, f"--groups={DOCKER}") == everything, "as one user would"

        made = client.post("/api/workers/generate-script", headers=admin).json()["data"]
        assert JOIN_TOKEN in made["script"]
        assert "10.0.0.1:2377" in made["script"]
        assert ours.authority.read_text().splitlines()[1] in made["script"]
        host_says = registration("web-1")
        document = {"hostname": "web-1", "ipAddress": host_says.ip_address, "capacity": CAPACITY, "metadata": {}}
        joined = client.post("/api/workers/register", headers=bearer(made["token"]), json=document)
        assert joined.status_code in (200, 201), joined.text

        worker_id = add_worker(connection, "other", name="old", swarm_node_id=NODE, swarm_node_confirmed=NODE)
        assert client.delete(f"/api/workers/{worker_id}", headers=admin).status_code == 200
    eventually(lambda: manager.swarm.removed == [f"/nodes/{NODE}"])
    eventually(lambda: connection.execute("SELECT count(*) FROM node_removals").fetchone() == (0,))


def test_what_is_asked_of_the_monitor_knows_the_authority(manager: Manager, connection: psycopg.Connection) -> None:
    ours = manager.certified(NOW)
    url, _ = manager.serve()
    manager.environment["SKYCTL_API_URL"] = url
    manager.monitor().until("action=leads")
    admin = bearer(admin_token(SECRET, connection))
    with httpx.Client(base_url=url, verify=trusting(ours.authority), timeout=PATIENCE_SECONDS, headers=admin) as client:
        answer = client.get("/api/doctor")
        assert answer.status_code == 200, answer.text
        checks = {check["name"]: check for check in answer.json()["data"]["checks"]}
        assert (checks["api"]["state"], checks["certificate"]["state"]) == ("ok", "ok"), checks
        assert checks["certificate"]["found"].startswith("the authority's")
        made = client.post("/api/invitations", json={"name": "web-1"})
        assert ours.authority.read_text().splitlines()[1] in made.json()["data"]["script"]


CAPACITY = {"cpuCores": 2, "memoryMb": 2048, "diskGb": 20}


def test_a_certificate_is_renewed_by_the_monitor_for_the_names_of_root_alone(
    manager: Manager, connection: psycopg.Connection
) -> None:
    ours = manager.certified(NOW - timedelta(days=400))
    before, key = ours.inspect()[-1], ours.server_key.read_text()
    url, process = manager.serve()
    foreign, _ = host.x509.make_request(["panel.example.com"])
    connection.execute("INSERT INTO certificate_requests (id, request) VALUES ('foreign', %s)", [foreign])
    manager.monitor()
    process.until("action=certificate_loaded")
    ask(url, ours.authority)
    after = ours.inspect()[-1]
    assert after.ends_at > before.ends_at
    assert after.names == before.names
    assert ours.server_key.read_text() != key
    assert {path.stat().st_uid for path in manager.data.rglob("*") if path.name.startswith("server")} == {SERVE}
    told = connection.execute(
        "SELECT actor, details ->> 'fingerprint' FROM worker_events WHERE kind = 'certificate_made'"
    )
    assert told.fetchall() == [("monitor", after.fingerprint)]
    [(certificate, refusal)] = connection.execute(
        "SELECT certificate, refusal FROM certificate_requests WHERE id = 'foreign'"
    ).fetchall()
    assert certificate is None
    assert refusal.startswith("a certificate for panel.example.com: not a name of `skyctl tls init`")
    assert not list(manager.data.rglob("next.*"))


def test_nothing_of_serves_is_taken_for_the_authority(manager: Manager, tmp_path: Path) -> None:
    ours = manager.certified(NOW)
    other = Certificates(tmp_path / "other")
    other.folder.parent.mkdir()
    other.make(["localhost", "127.0.0.1", "panel.example.com"], NOW)
    own = manager.data / "tls"
    for name in ("ca.pem", "ca.key", "server.pem", "server.key"):
        (own / name).write_bytes((other.folder / name).read_bytes())
        os.chown(own / name, SERVE, SERVE)
    etc = tmp_path / "etc"
    subprocess.run(["cp", "-a", "/etc", etc], check=True)

    def cli(*arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run skyctl as root, whose key of releases goes into a copy of this machine's /etc."""
        beside = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', str(etc)]
        environment = clean_environment() | manager.environment | {"SKYCTL_DATA_DIR": str(manager.data)}
        command = [*beside, sys.executable, "-m", "skyctl", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)

    command = cli("workers", "install-script", "--link", "--name", "web-1").stdout
    assert ours.authority.read_text().strip() in command
    script = cli("workers", "install-script", "--name", "web-2").stdout
    assert ours.authority.read_text().splitlines()[1] in script
    assert cli("tls", "init").returncode == 0, "which makes serve's certificate anew"
    names = json.loads(cli("tls", "show", "-o", "json").stdout)["certificates"][-1]["names"]
    assert "panel.example.com" not in names
    assert (own / "ca.pem").read_text() == ours.authority.read_text()


def test_serve_takes_no_certificate_that_does_not_fit(tmp_path: Path) -> None:
    ours, other = (Certificates(tmp_path / name) for name in ("ours", "other"))
    for one in (ours, other):
        one.folder.parent.mkdir()
        one.make(["localhost"], NOW)
    shown = ours.server.read_text()
    unfit: tuple[Callable[[], str], ...] = (
        lambda: other.sign(ours.request(), NOW)[0],  # by another authority
        lambda: (ours.request(), ours.sign(other.request(), NOW)[0])[1],  # of another key
        lambda: (ours.request(), "no certificate")[1],
    )
    for signed in unfit:
        with pytest.raises(SkyctlError, match="does not fit its key"):
            ours.adopt(signed())
    assert ours.server.read_text() == shown
    ours.adopt(ours.sign(ours.request(), NOW)[0])
    assert ours.fit
    assert ours.server.read_text() != shown
