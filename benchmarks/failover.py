"""How long services are away when the cable of their worker is pulled, on a real swarm, in one run:

ours      pinned services of ours, moved by a real monitor once their worker has fallen silent
Swarm     the same containers on the same node as services that nobody pinned, which Swarm starts elsewhere by itself

Both hear each node every 2 s and take it for dead after 6: from the last answer before to the first after it, of each
of the services, at most 1.2 x. In the second half the monitor waits 120 s for heartbeats, so that it is the engine's
own view of the node by which it knows: at which it looks every 10 s, and which has to last. Exit code 1 where the
limit is missed. It starts the lab's machines (tests/lab): root, on Debian, with a Docker engine.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from _limits import Limit, hold
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from skyctl.host.postgres import EmbeddedPostgres  # noqa: E402
from skyctl.operations.admin import schema  # noqa: E402
from tests.conftest import SECRET, Process, make_context  # noqa: E402
from tests.lab import images  # noqa: E402
from tests.lab.conftest import ANY_LOAD  # noqa: E402
from tests.lab.machines import Node  # noqa: E402
from tests.lab.network import Network  # noqa: E402
from tests.lab.probe import Probe  # noqa: E402
from tests.lab.site import Site  # noqa: E402
from tests.lab.swarm import Swarm  # noqa: E402
from tests.support.helpers import eventually  # noqa: E402

ROUNDS, TIMES_SWARM, PER_SECOND = 3, 1.2, 120  # a worker that fails oftener is flapping, and gets no containers
OURS, SWARMS = ("a1", "a2", "a3"), ("b1", "b2", "b3")
# what a dead node is known by: the heartbeats, and the engine's own view of it
KNOWN_BY = {
    "heartbeats": {"WORKER_HEARTBEAT_TIMEOUT": "6"},
    "the engine": {"WORKER_HEARTBEAT_TIMEOUT": "120", "WORKER_ENGINE_GRACE": "1"},
}


class Gap(NamedTuple):
    """The longest time between two answers, of the last service of each kind, in seconds."""

    ours: float
    swarms: float


@contextmanager
def site(swarm: Swarm, folder: Path, url: str, settings: dict[str, str]) -> Iterator[Site]:
    """An installation on an empty database."""
    started: list[Process] = []

    def start(*words: str, **more: str) -> Process:
        environment = {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET, "SKYCTL_DATA_DIR": str(folder), **more}
        started.append(Process([sys.executable, "-m", "skyctl", *words], environment))
        return started[-1]

    context = make_context(url, engine=swarm.engine, health=ANY_LOAD)
    schema.initialize(context)
    with psycopg.connect(url, autocommit=True) as connection:
        made = Site(swarm, context, connection, start, **settings)
        try:
            made.monitor()
            yield made
        finally:
            made.close()
            for process in started:
                process.stop()
            context.db.close()


def fail_over(made: Site, dying: Node, other: Node) -> Gap:
    """Pull the cable of the node where all services run, until all answer from the other one; put it back."""
    with Probe(made.swarm.manager, made.network, *OURS, *SWARMS, per_second=PER_SECOND, patience_seconds=0.5) as probe:
        dying.cut()
        eventually(lambda: running_on(made.swarm, other.name) == {*OURS, *SWARMS})
        told = probe.ended()
    dying.heal()
    made.until_active(dying.name, other.name)
    eventually(lambda: made.containers(dying) == 0)
    gap = Gap(*(max(told[name].longest_gap_seconds for name in names) for names in (OURS, SWARMS)))
    print(f"{dying.name} fails: ours {gap.ours:.1f} s, Swarm {gap.swarms:.1f} s", flush=True)
    return gap


def running_on(swarm: Swarm, hostname: str) -> set[str]:
    """The services with a task that runs there, as Swarm's own client says it; ours by the names of their users."""
    said = swarm.manager.run(
        "docker", "node", "ps", "--filter", "desired-state=running", "--format", "{{.Name}} {{.CurrentState}}", hostname
    )
    return {line.split(".")[0].rsplit("-", 1)[-1] for line in said.splitlines() if line.split()[1] == "Running"}


def rounds(made: Site) -> list[Gap]:
    """Let services of both kinds run on the first worker, and have them fail over to and fro."""
    north, south = made.swarm.workers
    made.until_active(north.name, south.name)
    made.deploy(*OURS, to=north.name)
    made.swarm.engine.set_availability(made.swarm.ids[south.name], "pause")
    for name in SWARMS:
        made.swarm.manager.run(
            *("docker", "service", "create", "--quiet", "--detach", "--name", name, "--network", made.network),
            *("--endpoint-mode", "dnsrr", "--no-resolve-image", "--limit-cpu", "0.2"),
            *("--constraint", "node.role==worker", images.WEB),
        )
    eventually(lambda: running_on(made.swarm, north.name) == {*OURS, *SWARMS})
    made.swarm.engine.set_availability(made.swarm.ids[south.name], "active")
    pairs = [(north, south), (south, north)] * ROUNDS
    return [fail_over(made, *pair) for pair in pairs[:ROUNDS]]


def measure(lab: Network, folder: Path) -> dict[str, Sequence[Gap]]:
    """Boot a swarm, and measure by either way to know of a dead node."""
    measured: dict[str, Sequence[Gap]] = {}
    with Node(lab, "manager") as manager, Node(lab, "north") as north, Node(lab, "south") as south:
        manager.run("docker", "swarm", "init", "--advertise-addr", manager.address, "--dispatcher-heartbeat", "2s")
        swarm = Swarm(manager, [north, south])
        for known_by, settings in KNOWN_BY.items():
            data = folder / known_by.replace(" ", "-")
            data.mkdir(0o755)
            with EmbeddedPostgres(data).running() as url, site(swarm, data, url, settings) as made:
                measured[known_by] = rounds(made)
            swarm.clear()
    return measured


def main() -> None:
    """Measure, and say how it compares."""
    lab = Network()
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-", dir="/var/lib") as name:
        Path(name).chmod(0o755)
        try:
            measured = measure(lab, Path(name))
        finally:
            lab.close()
    table = Table("known by", "ours", "Swarm", "ratio", title=f"seconds without an answer, median of {ROUNDS}")
    ratios = {known_by: statistics.median(gap.ours / gap.swarms for gap in gaps) for known_by, gaps in measured.items()}
    for known_by, gaps in measured.items():
        ours, swarms = (statistics.median(times) for times in zip(*gaps, strict=True))
        table.add_row(known_by, f"{ours:.1f}", f"{swarms:.1f}", f"{ratios[known_by]:.2f}")
    Console().print(table)
    hold(Limit("away with the same time to know of it, against Swarm", ratios["heartbeats"], TIMES_SWARM, "x"))


if __name__ == "__main__":
    main()
