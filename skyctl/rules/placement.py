"""Placement: which containers go to which workers.

A worker may take a container when it is active and nothing speaks against it, when it is not the one to leave, when it
is of the wanted region and pool, and when it has room in CPU, memory and disk: capacity less what deployments reserve
or what is measured as used (of CPU the average of the last heartbeats), whichever is more, less what this batch has put
there. Of the workers with room it is, in this order,

    one where the container did not fail lately        (`Demand.avoid`)
    the one with the fewest siblings                   (`Demand.spread`)
    the one with the lowest load                       the mean of CPU, memory and disk percent, with what this batch
                                                       put there
    the one with the lowest id

The largest containers choose first. Where that leaves one out which a packer would have placed, the batch is packed
instead: the largest first (the sum of its needs as shares of the most that an eligible worker has in each dimension;
then by its needs in CPU, memory and disk, then by the lowest id), each to the eligible worker with the lowest id that
has room.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heapify, heappop, heappush
from uuid import UUID

from skyctl.domain.cluster import Capacity, HealthPolicy, Worker
from skyctl.domain.states import WorkerStatus
from skyctl.domain.workloads import Candidate, Demand, Placement, Refusal
from skyctl.rules import health

# Amounts are whole billionths of a core, a MiB and a GiB: three containers of 0.1 cores fit where there are 0.3.
UNIT = 10**9
Amounts = tuple[int, int, int]
Where = tuple[str | None, str | None]
Rank = tuple[int, float, int]
DIMENSIONS = ("CPU", "memory", "disk")
WORDS = ("CPU cores", "MiB of memory", "GiB of disk")


def plan(demands: Sequence[Demand], candidates: Sequence[Candidate], policy: HealthPolicy) -> list[Placement | Refusal]:
    """One answer to each demand, in the order of the demands; what they say depends on no order. Ids are unique, needs
    not negative. Takes about 30 us a demand; many times that where most are refused and each needs something else.
    """
    cluster = Cluster(candidates, policy, {(demand.region, demand.pool) for demand in demands})
    ordered = cluster.largest_first(demands)
    batch = Batch(cluster, ordered)
    if len(batch.placed) < len(ordered):
        packed = Batch(cluster, ordered, is_packing=True)
        if packed.placed.keys() - batch.placed.keys():
            batch = packed
    refusals = Refusals(cluster, batch)
    return [batch.placed.get(demand.id) or refusals.of(demand) for demand in demands]


def amounts(capacity: Capacity) -> Amounts:
    """A capacity in whole units, rounded to the nearest."""
    return (round(capacity.cpu_cores * UNIT), round(capacity.memory_mb * UNIT), round(capacity.disk_gb * UNIT))


def exclusion(candidate: Candidate, policy: HealthPolicy) -> str:
    """The reason that a worker takes no container, in words; empty where there is none. Exhaustion counts before the
    monitor has concluded it."""
    worker = candidate.worker
    causes = {
        "offline": worker.status is WorkerStatus.OFFLINE,
        "never heard from": worker.status is WorkerStatus.PENDING,
        "draining": worker.status is WorkerStatus.DRAINING or worker.drain_requested_at is not None,
        "unhealthy": worker.status is WorkerStatus.UNHEALTHY or bool(health.excesses(worker, policy)),
        "its engine does not answer": worker.engine_away_since is not None,
        "flapping": worker.flapping_since is not None,
        "not in the swarm": not (worker.swarm_node_id or worker.swarm_node_claim),
        candidate.obstacle: bool(candidate.obstacle),
    }
    return next((cause for cause, holds in causes.items() if holds), "")


def home(worker: Worker) -> Where:
    """The region and pool that a worker says it is of; null where it says none, or something that is no text."""
    region, pool = worker.metadata.get("region"), worker.metadata.get("pool")
    return region if isinstance(region, str) else None, pool if isinstance(pool, str) else None


@dataclass(slots=True)
class Target:
    """An eligible worker as the batch fills it: its `place` in the order of ids, its room, its load in percent."""

    worker: Worker
    place: int
    capacity: Amounts
    room: Amounts
    load: float
    siblings: dict[str | None, int]

    def lacking(self, needs: Amounts) -> int | None:
        """The first dimension without room for so much."""
        for dimension in (0, 1, 2):
            if self.room[dimension] < needs[dimension]:
                return dimension
        return None

    def take(self, needs: Amounts, spread: str | None) -> None:
        """Puts a container there."""
        (cpu, memory, disk), room, most = needs, self.room, self.capacity
        self.room = (room[0] - cpu, room[1] - memory, room[2] - disk)
        # a worker without any of a dimension takes only what needs none of it
        self.load += (cpu / (most[0] or 1) + memory / (most[1] or 1) + disk / (most[2] or 1)) * 100 / 3
        if spread is not None:
            self.siblings[spread] = self.siblings.get(spread, 0) + 1


def target_for(candidate: Candidate, place: int, policy: HealthPolicy) -> Target:
    """A worker before the batch."""
    worker, held = candidate.worker, amounts(candidate.reserved)
    has, percents = amounts(worker.capacity), health.lately(worker, policy)[:3]
    used = [round(amount * percent / 100) for amount, percent in zip(has, percents, strict=True)]
    room = (has[0] - max(held[0], used[0]), has[1] - max(held[1], used[1]), has[2] - max(held[2], used[2]))
    return Target(worker, place, has, room, sum(percents) / 3, dict(candidate.siblings.items()))


class Cluster:
    """The facts that stay the same while a batch is placed: the eligible workers of each place, and why the others are
    not."""

    def __init__(self, candidates: Iterable[Candidate], policy: HealthPolicy, wanted: set[Where]) -> None:
        ordered = sorted(candidates, key=lambda candidate: candidate.worker.id.int)
        judged = [(candidate, exclusion(candidate, policy)) for candidate in ordered]
        self.excluded = Counter(cause for _, cause in judged if cause)
        self.eligible = [candidate for candidate, cause in judged if not cause]
        self.ids = {candidate.worker.id for candidate in self.eligible}
        self.homes = Counter(home(candidate.worker) for candidate in self.eligible)
        self.wanted = wanted
        self._policy = policy

    def largest_first(self, demands: Iterable[Demand]) -> list[tuple[Demand, Amounts]]:
        """The demands and what they need, in the order in which they choose."""
        capacities = [amounts(candidate.worker.capacity) for candidate in self.eligible] or [(1, 1, 1)]
        cpu, memory, disk = (max(amount) or 1 for amount in zip(*capacities, strict=True))

        def order(pair: tuple[Demand, Amounts]) -> tuple[int, Amounts, int]:
            demand, needs = pair
            # the sum of the shares times all three capacities, which is a whole number and so compares exactly
            return -(needs[0] * memory * disk + needs[1] * cpu * disk + needs[2] * cpu * memory), needs, demand.id.int

        return sorted(((demand, amounts(demand.needs)) for demand in demands), key=order)

    def crowded_spreads(self, demands: Iterable[Demand]) -> set[str | None]:
        """The spreads that may come to be on half of the workers."""
        many = Counter(demand.spread for demand in demands if demand.spread is not None)
        many.update(spread for candidate in self.eligible for spread in candidate.siblings if spread in many)
        return {spread for spread, count in many.items() if count > len(self.eligible) / 2}

    def targets(self) -> dict[Where, list[Target]]:
        """All eligible workers afresh, by each place that is wanted of which they are."""
        targets: dict[Where, list[Target]] = {where: [] for where in self.wanted}
        for place, candidate in enumerate(self.eligible):
            target, (region, pool) = target_for(candidate, place, self._policy), home(candidate.worker)
            for where in {(region, pool), (region, None), (None, pool), (None, None)} & self.wanted:
                targets[where].append(target)
        return targets


class Queue:
    """Workers, the best first, of which those without room are passed over.

    In a batch room only shrinks and ranks only worsen, so an entry is at best too good, and is put right when it comes
    to the top. A worker that lacks room waits, in the dimension that it lacks, until somebody needs no more of it than
    there was; until then it costs nothing. So a refusal costs next to nothing, too, once something no larger was
    refused.
    """

    def __init__(self, targets: Sequence[Target], rank: Callable[[Target], Rank]) -> None:
        self.rank = rank
        self.size = len(targets)
        self._ready = [(rank(target), target) for target in targets]
        self._waiting: tuple[list[tuple[int, int, Target]], ...] = ([], [], [])
        heapify(self._ready)

    def pop(self, needs: Amounts) -> Target | None:
        """Takes the best worker with room out of the queue."""
        for need, waiting in zip(needs, self._waiting, strict=True):
            while waiting and need <= -waiting[0][0]:
                self.push(heappop(waiting)[2])
        while self._ready:
            rank, best = heappop(self._ready)
            lacking = best.lacking(needs)
            if lacking is not None:
                heappush(self._waiting[lacking], (-best.room[lacking], best.place, best))
            elif rank == self.rank(best):
                return best
            else:
                self.push(best)
        return None

    def push(self, target: Target) -> None:
        """Puts a worker back."""
        heappush(self._ready, (self.rank(target), target))


class Batch:
    """The demands, placed in the order given: by load, or packed."""

    def __init__(self, cluster: Cluster, ordered: Sequence[tuple[Demand, Amounts]], is_packing: bool = False) -> None:
        self.is_packing = is_packing
        self.targets = cluster.targets()
        self.placed: dict[UUID, Placement] = {}
        self._queue = cache(self._new_queue)
        self._crowded = set() if is_packing else cluster.crowded_spreads(demand for demand, _ in ordered)
        for demand, needs in ordered:
            self._place(demand, needs)

    def _new_queue(self, where: Where, spread: str | None) -> Queue:
        """The workers of a region and pool by id, or by siblings (of no spread: none), load and id."""
        if self.is_packing:
            return Queue(self.targets[where], lambda target: (0, 0.0, target.place))
        return Queue(self.targets[where], lambda target: (target.siblings.get(spread, 0), target.load, target.place))

    def _place(self, demand: Demand, needs: Amounts) -> None:
        avoid, spread = (frozenset[UUID](), None) if self.is_packing else (demand.avoid, demand.spread)
        # Stepping over all the siblings of a crowded spread would be slow; for any other, one more queue would be.
        queue = self._queue((demand.region, demand.pool), spread if spread in self._crowded else None)
        choices: list[tuple[bool, int, Rank, Target]] = []
        aside = []
        while (target := queue.pop(needs)) is not None:
            aside.append(target)
            if target.worker.id == demand.source:
                continue
            rank, siblings = queue.rank(target), target.siblings.get(spread, 0)
            choices.append((target.worker.id in avoid, siblings, rank, target))
            # nobody behind it has fewer siblings than its queue ranks it by
            if not choices[-1][0] and siblings == rank[0]:
                break
        if choices:
            failed_there, siblings, _, chosen = min(choices)
            chosen.take(needs, demand.spread)
            reason = self._reason(chosen, queue.size, failed_there, siblings)
            self.placed[demand.id] = Placement(demand.id, chosen.worker.id, reason)
        for target in aside:
            queue.push(target)

    def _reason(self, chosen: Target, size: int, failed_there: bool, siblings: int) -> str:
        figure = f"{chosen.load:.0f} % with it, among {size} eligible"
        if self.is_packing:
            return f"packed, so that more find room: {figure}"
        fewest = f"fewest siblings ({siblings}), then " if siblings else ""
        last_resort = "where it failed lately, for want of another: " if failed_there else ""
        return f"{last_resort}{fewest}lowest load: {figure}"


class Leftover:
    """The room that is left on the workers of one region and pool without one of them: in each dimension, the least
    first; and the workers of which no other has as much in all dimensions, since one of these comes nearest to any
    need."""

    def __init__(self, targets: Iterable[Target], source: UUID | None) -> None:
        others = [target for target in targets if target.worker.id != source]
        self.workers = len(others)
        self.rooms = [sorted(target.room[dimension] for target in others) for dimension in range(3)]
        self.roomiest: list[Target] = []
        for target in sorted(others, key=lambda other: other.room, reverse=True):
            if all(known.lacking(target.room) is not None for known in self.roomiest):
                self.roomiest.append(target)


class Refusals:
    """The refusals of demands without a place, worded once for each kind of them, by what the batch has left."""

    def __init__(self, cluster: Cluster, batch: Batch) -> None:
        self._cluster, self._targets = cluster, batch.targets
        self._left = cache(lambda where, source: Leftover(batch.targets[where], source))
        self._explained = cache(self._explain)

    def of(self, demand: Demand) -> Refusal:
        """The reason that a demand found no place."""
        source = demand.source if demand.source in self._cluster.ids else None
        return Refusal(demand.id, *self._explained(amounts(demand.needs), (demand.region, demand.pool), source))

    def _explain(self, needs: Amounts, where: Where, source: UUID | None) -> tuple[Mapping[str, int], str]:
        """The causes, and a sentence. A worker that lacks room in two dimensions counts in both."""
        left = self._left(where, source)
        causes = Counter(self._cluster.excluded)
        for (region, pool), count in self._cluster.homes.items():
            if where[0] not in (None, region):
                causes["other region"] += count
            elif where[1] not in (None, pool):
                causes["other pool"] += count
        causes["the worker that it leaves"] = len(self._targets[where]) - left.workers
        if not left.workers:
            counts = ", ".join(f"{count} {cause}" for cause, count in sorted((+causes).items()))
            return +causes, f"no worker is eligible: {counts or 'there is none'}"
        for dimension, rooms, need in zip(DIMENSIONS, left.rooms, needs, strict=True):
            causes[f"no room: {dimension}"] = bisect_left(rooms, need)

        def shortage(target: Target) -> tuple[float, int]:
            """The largest share of its needs that it lacks there."""
            return max((need - free) / (need or 1) for need, free in zip(needs, target.room, strict=True)), target.place

        nearest = min(left.roomiest, key=shortage)
        return +causes, f"no room: {nearest.worker.name} comes nearest and lacks {lack(nearest.room, needs)}"


def lack(room: Amounts, needs: Amounts) -> str:
    """The lack of room in words, to a hundredth: the lack rounded up, what is free rounded down."""
    cent = UNIT // 100
    return " and ".join(
        f"{-((free - need) // cent) / 100:.10g} {word} (needs {need / UNIT:.10g}, has {free // cent / 100:.10g} free)"
        for need, free, word in zip(needs, room, WORDS, strict=True)
        if free < need
    )
