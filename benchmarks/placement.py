"""What it costs to place a batch, in one run:

100,000 containers    of mixed sizes onto 10,000 workers: all of them placed, within 5 s
a naive loop          that scans all workers for each container, for the first 200 of them: a ratio

Exit code 1 where the limit is missed.
"""

import random
import statistics
import time
from datetime import UTC, datetime
from uuid import UUID

from _limits import Limit, hold
from rich.console import Console
from rich.table import Table

from skyctl.domain.cluster import Capacity, HealthPolicy, Load, Worker
from skyctl.domain.engine import MEGABYTE, NANO, EngineNode, NodeUse, Requirements, reserved_for
from skyctl.domain.states import WorkerStatus
from skyctl.domain.workloads import Candidate, Demand, Placement
from skyctl.rules.placement import plan

WORKERS, CONTAINERS, SAMPLE, ROUNDS = 10_000, 100_000, 200, 3
LIMIT_SECONDS = 5.0
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def cluster(chance: random.Random) -> list[Candidate]:
    """Workers of three sizes in ten regions, at most 60 % used."""
    found = []
    for number in range(WORKERS):
        cores = chance.choice([16, 32, 64])
        worker = Worker(
            id=UUID(int=number),
            name=f"worker-{number}",
            hostname="h",
            ip_address="10.0.0.1",
            status=WorkerStatus.ACTIVE,
            capacity=Capacity(cores, 4096 * cores, 20 * cores),
            load=Load(chance.uniform(0, 60), chance.uniform(0, 60), chance.uniform(0, 60)),
            created_at=NOW,
            updated_at=NOW,
            swarm_node_id="node",
            metadata={"region": f"region-{number % 10}"},
        )
        node = EngineNode("node", "h", True, "active", capacity=worker.capacity, labels={"disk": "ssd"})
        use = NodeUse(cores * NANO, 4096 * cores * MEGABYTE, containers={f"service{each}": 1 for each in range(10)})
        held = Capacity(cores / 4, 1024 * cores, 5 * cores)
        found.append(Candidate(worker, reserved=held, node=node, use=use))
    return found


def containers(chance: random.Random) -> list[Demand]:
    """Containers of many sizes; a third must stay in their region, and services of five spread; each asks something of
    its node."""
    return [
        Demand(
            UUID(int=chance.getrandbits(128)),
            needs,
            region=chance.choice([None, None, f"region-{chance.randrange(10)}"]),
            spread=f"service-{number // 5}",
            asks=Requirements(constraints=("node.labels.disk==ssd",), reserved=reserved_for(needs)),
            engine_id=f"service{number}",
        )
        for number in range(CONTAINERS)
        for needs in [
            Capacity(
                chance.choice([0.1, 0.25, 0.5, 1, 2]), chance.choice([128, 256, 512, 1024, 4096]), chance.randint(1, 20)
            )
        ]
    ]


def naive_rate(demands: list[Demand], candidates: list[Candidate]) -> float:
    """Containers a second by a loop that scans all workers for each one, which is told nothing of spread, reasons or
    packing."""
    left = []
    for one in candidates:
        has, held, load = one.worker.capacity, one.reserved, one.worker.load
        left.append(
            [
                has.cpu_cores - max(held.cpu_cores, has.cpu_cores * load.cpu_percent / 100),
                has.memory_mb - max(held.memory_mb, has.memory_mb * load.memory_percent / 100),
                has.disk_gb - max(held.disk_gb, has.disk_gb * load.disk_percent / 100),
                sum(load[:3]) / 3,
            ]
        )
    started = time.perf_counter()
    for demand in demands:
        needs = demand.needs
        fits = (
            (room[3], index)
            for index, room in enumerate(left)
            if room[0] >= needs.cpu_cores
            and room[1] >= needs.memory_mb
            and room[2] >= needs.disk_gb
            and demand.region in (None, candidates[index].worker.metadata["region"])
        )
        _, best = min(fits)
        has, room = candidates[best].worker.capacity, left[best]
        shares = needs.cpu_cores / has.cpu_cores, needs.memory_mb / has.memory_mb, needs.disk_gb / has.disk_gb
        left[best] = [
            room[0] - needs.cpu_cores,
            room[1] - needs.memory_mb,
            room[2] - needs.disk_gb,
            room[3] + 100 * sum(shares) / 3,
        ]
    return len(demands) / (time.perf_counter() - started)


def main() -> None:
    chance = random.Random(1)
    candidates, demands = cluster(chance), containers(chance)
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        answers = plan(demands, candidates, HealthPolicy())
        took.append(time.perf_counter() - started)
    placed = sum(isinstance(answer, Placement) for answer in answers)
    seconds, naive = statistics.median(took), naive_rate(demands[:SAMPLE], candidates)
    table = Table(title=f"{CONTAINERS:,} containers onto {WORKERS:,} workers: median of {ROUNDS}")
    for heading in ("what", "measured", "limit"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    table.add_row("placed", f"{placed:,}", f"{CONTAINERS:,}")
    table.add_row("whole batch", f"{seconds:.2f} s", f"{LIMIT_SECONDS:g} s")
    table.add_row("placements/s", f"{CONTAINERS / seconds:,.0f}", "")
    table.add_row(f"naive loop, {SAMPLE} of them, placements/s", f"{naive:,.0f}", "")
    table.add_row("", f"{CONTAINERS / seconds / naive:,.0f} x", "")
    Console().print(table)
    hold(
        Limit("placed", placed, CONTAINERS, "", least=True),
        Limit(f"{CONTAINERS:,} containers onto {WORKERS:,} workers", seconds, LIMIT_SECONDS, "s"),
    )


if __name__ == "__main__":
    main()
