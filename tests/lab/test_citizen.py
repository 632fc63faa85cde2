"""The agent as a citizen of its host: under its own hardened unit, back after whatever ends it, upgraded and gone
back."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

import skyagent
from skyctl.domain.cluster import Worker
from skyctl.host.certificates import Certificates
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.host.release_key import ReleaseKey
from skyctl.operations.admin import events as events_admin
from skyctl.operations.admin import workers
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, TEMPLATE, Cli, Process, clean_environment, database_of, make_context
from tests.support.helpers import PATIENCE_SECONDS, TESTS, eventually

from . import images
from .machines import Host
from .network import Network

UNIT = "skypanel-worker"
ROOT = Path(__file__).parents[2]
# It is as if Nix were there: what matters is that the unit lets the agent find and run it.
NIX = """mkdir -p /nix/var/nix/profiles/default/bin
printf '#!/bin/sh\\necho nix 2.18.1\\n' >/nix/var/nix/profiles/default/bin/nix
chmod +x /nix/var/nix/profiles/default/bin/nix"""
DISK_GB = 3
OWN_DISK = f"""systemctl stop docker docker.socket
mount -t tmpfs -o mode=710,size={DISK_GB}G tmpfs /var/lib/docker
systemctl start docker"""
SILENT = "import time\n\n\ndef main():\n    time.sleep(10_000)\n"


def with_settings(*lines: str) -> str:
    """A script that gives the agent's unit these settings and starts it again."""
    content = "\\n".join(["[Service]", *lines, ""])
    return f"""mkdir -p /etc/systemd/system/{UNIT}.service.d
printf '{content}' >/etc/systemd/system/{UNIT}.service.d/test.conf
systemctl daemon-reload && systemctl restart {UNIT}"""


QUICK_WATCHDOG = with_settings("WatchdogSec=2", "Environment=SKYAGENT_TRIAL_SECONDS=4")
PATIENT_TRIAL = with_settings(f"Environment=SKYAGENT_TRIAL_SECONDS={PATIENCE_SECONDS:g}")


@dataclass
class Citizen:
    """A host whose agent was installed by the script, and its manager: the API, and skyctl as people call it."""

    host: Host
    context: Context
    worker_id: UUID
    environment: dict[str, str]
    serve: Callable[[Path], None]

    @property
    def worker(self) -> Worker:
        """What the manager knows of it."""
        return workers.get(self.context, self.worker_id)

    @property
    def pid(self) -> str:
        """The agent's process; 0 while there is none."""
        return self.host.run("systemctl", "show", "--property", "MainPID", "--value", UNIT).strip()

    def shell(self, script: str) -> str:
        return self.host.run("sh", "-ec", script)

    def beats(self) -> None:
        """Wait for the next heartbeat."""
        before = self.worker.last_heartbeat_at
        eventually(lambda: self.worker.last_heartbeat_at != before)

    def events(self) -> list[str]:
        return [event.kind for event in events_admin.since(self.context, 0, 1000)]

    def manage_with(self, package: Path) -> None:
        """Let the manager be one whose agent is this package, and let it offer that."""
        self.serve(package)
        command = [sys.executable, "-P", "-m", "skyctl", "workers", "upgrade", "citizen"]
        environment = clean_environment() | self.environment | {"PYTHONPATH": f"{package.parent}:{ROOT}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert (done.returncode, done.stdout[:16]) == (0, "citizen: offered"), done.stderr


@pytest.fixture(scope="module")
def citizen(lab: Network, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Citizen]:
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        database = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(database.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
    with socket.socket() as free:
        free.bind((lab.gateway, 0))
        port = free.getsockname()[1]
    url = f"https://{lab.gateway}:{port}"
    database_url, data = database_of(postgres.url, name), tmp_path_factory.mktemp("data")
    environment = {
        "SKYCTL_DATABASE_URL": database_url,
        "SKYCTL_JWT_SECRET": SECRET,
        "WORKER_HEARTBEAT_INTERVAL": "1",
        "SKYCTL_DATA_DIR": str(data),
    }
    made = Cli(environment)("tls", "init", "--host", lab.gateway)
    assert made.returncode == 0, made.stderr
    serving: list[Process] = []

    def stop() -> None:
        while serving:
            process = serving.pop()
            process.stop()
            assert process.popen.stderr
            process.popen.stderr.close()

    def serve(package: Path) -> None:
        """The API of a manager whose agent is this package, in place of the one before."""
        stop()
        command = [
            *(sys.executable, "-P", "-m", "skyctl", "serve"),
            *("--host", lab.gateway, "--port", str(port)),
        ]
        serving.append(Process(command, environment | {"PYTHONPATH": f"{package.parent}:{ROOT}"}))
        serving[0].until("listening on ")

    context = make_context(database_url, release_key=ReleaseKey(data / "release.key"))
    context = replace(context, api_url=url, authority=Certificates(data).authority_for)
    with ExitStack() as stack:
        stack.callback(context.db.close)
        host = stack.enter_context(Host(lab, "citizen", fresh=False))
        stack.callback(stop)
        serve(Path(skyagent.__file__).parent)
        for script in (NIX, OWN_DISK):
            host.run("sh", "-ec", script)
        host.run("docker", "swarm", "init", "--advertise-addr", host.address)
        host.run("docker", "import", "-", images.IMAGE, stdin=images.busybox())
        host.run("docker", "run", "--detach", images.IMAGE, "sleep", "10000")
        invited, script = invitations.generate_script(context, TESTS, "citizen")
        host.run("sh", "-c", "sh 2>&1", stdin=script, timeout_seconds=300)
        yield Citizen(host, context, invited.worker_id, environment, serve)


def test_the_unit_is_hardened_and_its_user_is_not_root(citizen: Citizen) -> None:
    analyzed = citizen.shell(f"systemd-analyze security --no-pager {UNIT}")
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", analyzed)
    assert found
    assert float(found[1]) <= 2.0
    status = citizen.shell(f"cat /proc/{citizen.pid}/status")
    assert re.search(r"^Seccomp:\t2$", status, re.M)
    assert re.search(r"^CapBnd:\t0+$", status, re.M)
    assert citizen.shell(f"stat --format %U /proc/{citizen.pid}").strip() == "skyagent"


def test_only_the_agent_reads_its_secrets(citizen: Citizen) -> None:
    looked = citizen.shell(
        "cd /etc/skypanel-worker && stat --format '%a %U %G %n' . config.json release.pub /var/lib/skypanel-worker"
    )
    assert looked.splitlines() == [
        "750 root skyagent .",
        "600 skyagent skyagent config.json",
        "644 root root release.pub",
        "700 skyagent skyagent /var/lib/skypanel-worker",
    ]
    assert citizen.shell("id --name --groups skyagent").strip() == "skyagent"


def test_it_measures_all_that_it_is_to_report(citizen: Citizen) -> None:
    eventually(lambda: citizen.worker.load.container_count == 1)
    worker = citizen.worker
    assert worker.swarm_node_claim == citizen.host.run("docker", "info", "--format", "{{.Swarm.NodeID}}").strip()
    assert worker.metadata["nixVersion"] == "2.18.1"
    assert worker.capacity.disk_gb == DISK_GB
    assert 0 < worker.load.disk_percent < 50
    assert worker.load.memory_percent > 0


def test_its_journal_and_its_status_can_be_read(citizen: Citizen) -> None:
    citizen.beats()
    said = citizen.shell("journalctl --identifier skyagent --output json | head -n 100")
    lines = [json.loads(line) for line in said.splitlines()]
    accepted = [line for line in lines if line["MESSAGE"].startswith("action=accepted")]
    assert accepted[0]["PRIORITY"] == "6"
    assert {line["_SYSTEMD_UNIT"] for line in lines} == {f"{UNIT}.service"}
    shown = json.loads(citizen.shell("skyagent status -o json"))
    assert (shown["workerId"], shown["state"]) == (str(citizen.worker_id), "accepted")
    assert shown["lastHeartbeat"]["load"]["containerCount"] == 1


def test_killed_it_is_back_as_the_same_worker(citizen: Citizen) -> None:
    before, registered = citizen.pid, citizen.worker.metadata
    citizen.shell(f"systemctl kill --signal KILL {UNIT}")
    eventually(lambda: citizen.pid not in (before, "0"))
    citizen.beats()
    assert citizen.worker.metadata["bootId"] == registered["bootId"]
    assert "registered" not in citizen.events()[citizen.events().index("registered") + 1 :]


def test_frozen_it_is_started_again_by_the_watchdog(citizen: Citizen) -> None:
    citizen.shell(QUICK_WATCHDOG)
    citizen.beats()
    before = citizen.pid
    citizen.shell(f"kill -STOP {before}")
    eventually(lambda: citizen.pid not in (before, "0"))
    citizen.beats()
    assert "Watchdog timeout" in citizen.shell(f"journalctl --unit {UNIT}")


def package(folder: Path, **changed: str) -> Path:
    """The agent as version 9.9.9, with other modules in place of its own."""
    made = folder / "skyagent"
    shutil.copytree(Path(skyagent.__file__).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    for name, source in {"__init__": '__version__ = "9.9.9"\n', **changed}.items():
        (made / f"{name}.py").write_text(source)
    return made


def test_one_that_cannot_beat_leaves_the_old_one_beating(citizen: Citizen, tmp_path: Path) -> None:
    citizen.shell(QUICK_WATCHDOG)
    citizen.manage_with(package(tmp_path, __main__=SILENT))
    eventually(lambda: "agent_upgrade_failed" in citizen.events())
    citizen.beats()
    assert citizen.worker.metadata["agentVersion"] == skyagent.__version__
    assert citizen.worker.agent_offered is None


def test_a_newer_one_is_taken_over_on_the_unit(citizen: Citizen, tmp_path: Path) -> None:
    citizen.shell(PATIENT_TRIAL)
    citizen.manage_with(package(tmp_path))
    eventually(lambda: "agent_upgraded" in citizen.events())
    assert citizen.worker.metadata["agentVersion"] == "9.9.9"
    citizen.shell(f"systemctl restart {UNIT}")
    citizen.beats()
    assert json.loads(citizen.shell("skyagent status -o json"))["agentVersion"] == "9.9.9"
