"""Three fresh hosts become workers, one of them loses its power, and its service goes on elsewhere:
docs/walkthrough.md.

With UPDATE_DOCUMENTS=1 the document is written anew from what the commands printed.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import Cli, Process
from tests.support.helpers import eventually

from . import images
from .machines import Host, Node
from .network import Network
from .recorder import Recorder
from .site import IDLE, SETTINGS

DOCUMENT = Path(__file__).parents[2] / "docs/walkthrough.md"
NAMES = ("web-1", "web-2", "web-3")
DEPLOY = (
    "--image",
    images.WEB,
    "--cpu",
    "0.2",
    "--memory",
    "32M",
    "--disk",
    "0.01",
    "--endpoint-mode",
    "dnsrr",
    "--wait",
)
INTRODUCTION = f"""# A walkthrough

Three Debian hosts that have neither Docker nor Python become workers, one of them loses its power, and its
service goes on on another. `tests/lab/test_walkthrough.py` recorded it on three booted hosts with systemd,
beside which a manager of a swarm ran: ids, addresses and times are as they were. Each script went into its
host's shell as `ssh` would bring it there. All of it shared the two processors of one machine, so once they
had joined, the database took each worker's processors for idle: else one busy host would have left no room on
any. The data folder was another one than the usual that is shown. Heartbeats came every
{SETTINGS["WORKER_HEARTBEAT_INTERVAL"]} s, and a worker was offline after
{SETTINGS["WORKER_HEARTBEAT_TIMEOUT"]} s of silence; 30 s and 120 s are the defaults.
"""


@pytest.fixture
def hosts(lab: Network) -> Iterator[Sequence[Host]]:
    """Three that have neither Docker nor Python, booted together."""
    images.fresh()
    with ThreadPoolExecutor() as pool:
        booted = list(pool.map(lambda name: Host(lab, name, fresh=True), NAMES))
        yield booted
        list(pool.map(Host.remove, booted))


def test_a_service_survives_the_loss_of_its_host(
    lab: Network,
    manager: Node,
    hosts: Sequence[Host],
    cli: Cli,
    start: Callable[..., Process],
    connection: psycopg.Connection,
) -> None:
    cli.environment |= {**SETTINGS, "DOCKER_HOST": manager.engine}
    record = Recorder(DOCUMENT, INTRODUCTION, cli, {cli.environment["SKYCTL_DATA_DIR"]: "/var/lib/skyctl"})
    _start_the_manager(record, cli, start, lab.gateway)
    _join(record, cli, hosts)
    nodes = manager.run("docker", "node", "ls", "--format", "{{.Hostname}} {{.Status}}").splitlines()
    assert {f"{name} Ready" for name in NAMES} <= set(nodes)
    connection.execute(IDLE)
    for host in hosts:
        host.run("docker", "import", *images.variants()[images.WEB], "-", images.WEB, stdin=images.busybox())
    record.say("## A service\n\nIts image was loaded into the three engines before, since no registry is near.")
    record.skyctl("services", "deploy", "shop", *DEPLOY, tolerates=4)  # all processors may be busy just now
    record.skyctl("services", "list")
    first = _service(cli)["workerName"]
    lost = next(host for host in hosts if host.name == first)
    lost.kill()
    since = time.monotonic()
    record.say(f"## A host is lost\n\nThe power of {first} is switched off.")
    moved = eventually(lambda: _elsewhere(cli, first))
    gap = time.monotonic() - since
    record.say(f"{gap:.0f} s later, the monitor has found it silent, and moved its container:")
    for words in (
        ("workers", "list"),
        ("migrations", "list"),
        ("services", "list"),
        ("workers", "why", first),
        ("events",),
    ):
        record.skyctl(*words)
    assert _statuses(cli)[first] == "offline"
    assert moved != first
    record.check_document()


def _start_the_manager(record: Recorder, cli: Cli, start: Callable[..., Process], address: str) -> None:
    """The API, where hosts reach it, and a monitor."""
    record.say("## The manager")
    cli.environment["SKYCTL_API_URL"] = f"https://{address}:8642"
    record.keep(f"export SKYCTL_API_URL={cli.environment['SKYCTL_API_URL']}", "")
    record.skyctl("db", "init")
    record.skyctl("tls", "init")
    serving = start("serve", "--host", address, "--port", "8642", **cli.environment)
    record.keep(f"skyctl serve --host {address} --port 8642 &", serving.until("listening on "))
    watching = start("monitor", "--interval", "1", **cli.environment)
    watching.until("action=watching")
    record.keep("skyctl monitor --interval 1 &", "")


def _join(record: Recorder, cli: Cli, hosts: Sequence[Host]) -> None:
    """Let every host run its script, until each is an active worker."""
    record.say("## Three workers")

    def join(host: Host) -> tuple[str, float]:
        since = time.monotonic()
        script = cli("workers", "install-script", "--name", host.name).stdout
        told = host.run("sh", "-c", "sh 2>&1", stdin=script, timeout_seconds=600)
        eventually(lambda: _statuses(cli)[host.name] == "active")
        return told, time.monotonic() - since

    with ThreadPoolExecutor() as pool:
        joined = dict(zip(hosts, pool.map(join, hosts), strict=True))
    for host, (told, _) in joined.items():
        last = f"this host is worker {_worker_id(cli, host.name)}"
        assert last in told
        shown = told if host.name == NAMES[0] else f"... the same: {last}\n"
        record.keep(f"skyctl workers install-script --name {host.name} | ssh root@{host.name} sh", shown)
    listed = ", ".join(f"{host.name} after {seconds:.0f} s" for host, (_, seconds) in joined.items())
    record.say(f"All three at the same time; active were {listed}.")
    record.skyctl("workers", "list", "-o", "wide")


def _statuses(cli: Cli) -> dict[str, str]:
    """The status of each worker by its name."""
    listed = cli("workers", "list", "-o", "json")
    return {worker["name"]: worker["status"] for worker in json.loads(listed.stdout)["workers"]}


def _worker_id(cli: Cli, name: str) -> str:
    """The id of the worker of this name."""
    return str(json.loads(cli("workers", "show", name, "-o", "json").stdout)["id"])


def _service(cli: Cli) -> dict[str, Any]:
    """Where the service is, and how it stands."""
    (service,) = json.loads(cli("services", "list", "-o", "json").stdout)["services"]
    return {"status": service["status"], "workerName": (service["deployment"] or {}).get("workerName")}


def _elsewhere(cli: Cli, lost: str) -> str:
    """The worker on which the service runs, once that is another one than the lost."""
    service = _service(cli)
    return service["workerName"] if service["status"] == "running" and service["workerName"] != lost else ""
