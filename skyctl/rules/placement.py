"""Placement: which containers go to which workers.

A worker may take a container when it is active and nothing speaks against it, when it is not the one to leave, when it
is of the wanted region and pool, when Swarm would put the container on its node (`rules/fit`, with what this batch has
put there), and when it has room in CPU, memory and disk: capacity less what deployments reserve
or what is measured as used (of CPU the average of the last heartbeats) with what no heartbeat tells yet, whichever is
more, less what this batch has put there. Of the workers with room it is, in this order,

    one where the container did not fail lately        (`Demand.avoid`)
    the one with the fewest siblings                   (`Demand.spread`)
    the one with the lowest load                       the mean over CPU, memory and disk of the same in percent, with
                                                       what this batch put there: so a batch that is placed bit by bit
                                                       goes where it would at once
    the one with the lowest id

The largest containers choose first. Where that leaves one out which a packer would have placed, the batch is packed
instead: the largest first (the sum of its needs as shares of the most that an eligible worker has in each dimension;
then by its needs in CPU, memory and disk, then by the lowest id), each to the eligible worker with the lowest id that
has room.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import HealthPolicy, Worker
from skyctl.domain.engine import Requirements
from skyctl.domain.states import WorkerStatus
from skyctl.domain.workloads import Candidate, Demand, Placement, Refusal
from skyctl.rules import fit, health
from skyctl.rules.targets import UNIT, Amounts, Queue, Rank, Target, amounts, target_for

Home = tuple[str | None, str | None]
DIMENSIONS = ("CPU", "memory", "disk")
WORDS = ("CPU cores", "MiB of memory", "GiB of disk")


class Where(NamedTuple):
    """The region and the pool that are wanted, and the number of the kind of nodes (`Cluster.kinds`)."""

    home: Home
    kind: int


def plan(demands: Sequence[Demand], candidates: Sequence[Candidate], policy: HealthPolicy) -> list[Placement | Refusal]:
    """One answer to each demand, in the order of the demands; what they say depends on no order. Ids are unique, needs
    not negative. Takes about 30 us a demand; many times that where most are refused and each needs something else.
    """
    cluster = Cluster(candidates, policy, demands)
    ordered = cluster.largest_first(demands)
    batch = Batch(cluster, ordered)
    if len(batch.placed) < len(ordered):
        packed = Batch(cluster, ordered, is_packing=True)
        if packed.placed.keys() - batch.placed.keys():
            batch = packed
    refusals = Refusals(cluster, batch)
    return [batch.placed.get(demand.id) or refusals.of(demand) for demand in demands]


def exclusion(candidate: Candidate, policy: HealthPolicy) -> str:
    """The reason that a worker takes no container, in words; empty where there is none. Exhaustion counts before the
    monitor has concluded it."""
    worker = candidate.worker
    causes = {
        "offline": worker.status is WorkerStatus.OFFLINE,
        "never heard from": worker.status is WorkerStatus.PENDING,
        "draining": worker.status is WorkerStatus.DRAINING or worker.drain_requested_at is not None,
        "cordoned": worker.cordon is not None,
        "unhealthy": worker.status is WorkerStatus.UNHEALTHY or bool(health.excesses(worker, policy)),
        "its engine does not answer": worker.engine_away_since is not None,
        "flapping": worker.flapping_since is not None,
        "not in the swarm": not (worker.swarm_node_id or worker.swarm_node_claim),
        candidate.obstacle: bool(candidate.obstacle),
    }
    return next((cause for cause, holds in causes.items() if holds), "")


def home(worker: Worker) -> Home:
    """The region and pool that a worker says it is of; null where it says none, or something that is no text."""
    region, pool = worker.metadata.get("region"), worker.metadata.get("pool")
    return region if isinstance(region, str) else None, pool if isinstance(pool, str) else None


class Cluster:
    """The facts that stay the same while a batch is placed: where each container may be, the eligible workers of each
    place, and why the others are not."""

    def __init__(self, candidates: Iterable[Candidate], policy: HealthPolicy, demands: Iterable[Demand]) -> None:
        ordered = sorted(candidates, key=lambda candidate: candidate.worker.id.int)
        judged = [(candidate, exclusion(candidate, policy)) for candidate in ordered]
        self.excluded = Counter(cause for _, cause in judged if cause)
        self.eligible = [candidate for candidate, cause in judged if not cause]
        self.ids = {candidate.worker.id for candidate in self.eligible}
        self.kinds: dict[fit.Kind, int] = {}
        self.where = {each.id: self._where(each) for each in demands}
        self.wanted = set(self.where.values())
        self.unsuited = [self._unsuited(kind) for kind in self.kinds]
        self._policy = policy

    def _where(self, demand: Demand) -> Where:
        kind = self.kinds.setdefault(fit.kind_of(demand.asks), len(self.kinds))
        return Where((demand.region, demand.pool), kind)

    def _unsuited(self, kind: fit.Kind) -> dict[UUID, str]:
        """The eligible workers whose nodes are not of this kind, and why."""
        constraints, platforms, plugins = kind
        asks = Requirements(constraints=constraints, platforms=platforms, plugins=plugins)
        reasons = {each.worker.id: fit.unsuited(asks, each.node) for each in self.eligible if each.node}
        return {worker_id: reason for worker_id, reason in reasons.items() if reason}

    def barred(self, where: Where) -> Counter[str]:
        """How many of the eligible workers are elsewhere, or of another kind."""
        bars = (self.bar(candidate.worker, where) for candidate in self.eligible)
        return Counter(bar for bar in bars if bar)

    def bar(self, worker: Worker, where: Where) -> str:
        """Why an eligible worker is not of a place, or its node of another kind; empty where it is."""
        (region, pool), (its_region, its_pool) = where.home, home(worker)
        if region not in (None, its_region):
            return "other region"
        if pool not in (None, its_pool):
            return "other pool"
        return self.unsuited[where.kind].get(worker.id, "")

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
            homes = {(region, pool), (region, None), (None, pool), (None, None)}
            for where, there in targets.items():
                if where.home in homes and target.worker.id not in self.unsuited[where.kind]:
                    there.append(target)
        return targets


class Batch:
    """The demands, placed in the order given: by load, or packed."""

    def __init__(self, cluster: Cluster, ordered: Sequence[tuple[Demand, Amounts]], is_packing: bool = False) -> None:
        self.is_packing = is_packing
        self.where, self.targets = cluster.where, cluster.targets()
        self.placed: dict[UUID, Placement] = {}
        self._queue = cache(self._new_queue)
        self._crowded = set() if is_packing else cluster.crowded_spreads(demand for demand, _ in ordered)
        for demand, needs in ordered:
            self._place(demand, needs)

    def _new_queue(self, where: Where, spread: str | None) -> Queue:
        """The workers of a region and pool by id, or by siblings (of no spread: none), load and id."""
        if self.is_packing:
            return Queue(self.targets[where], lambda target: (0, 0.0, target.place))
        return Queue(
            self.targets[where],
            lambda target: (target.siblings.get(spread, 0), target.rounded_load, target.place),
        )

    def _place(self, demand: Demand, needs: Amounts) -> None:
        avoid, spread = (frozenset[UUID](), None) if self.is_packing else (demand.avoid, demand.spread)
        # Stepping over all the siblings of a crowded spread would be slow; for any other, one more queue would be.
        queue = self._queue(self.where[demand.id], spread if spread in self._crowded else None)
        choices: list[tuple[bool, int, Rank, Target]] = []
        aside = []
        while (target := queue.pop(needs)) is not None:
            aside.append(target)
            if target.worker.id == demand.source or target.obstacle(demand):
                continue
            rank, siblings = queue.rank(target), target.siblings.get(spread, 0)
            choices.append((target.worker.id in avoid, siblings, rank, target))
            # nobody behind it has fewer siblings than its queue ranks it by
            if not choices[-1][0] and siblings == rank[0]:
                break
        if choices:
            failed_there, siblings, _, chosen = min(choices)
            chosen.take(needs, demand)
            reason = self._reason(chosen, queue.size, failed_there, siblings)
            self.placed[demand.id] = Placement(demand.id, chosen.worker.id, reason, len(self.placed))
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
    """The room that is left on the workers where a container may be, without the one that it leaves and those whose
    nodes have no room for it by Swarm's rules: in each dimension, the least first; and the workers of which no other
    has as much in all dimensions, since one of these comes nearest to any need."""

    def __init__(self, targets: Sequence[Target], demand: Demand) -> None:
        obstacles = [(target, target.obstacle(demand)) for target in targets if target.worker.id != demand.source]
        self.leaves = len(obstacles) < len(targets)
        others = [target for target, obstacle in obstacles if not obstacle]
        self.obstacles = Counter(obstacle for _, obstacle in obstacles if obstacle)
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
        self._barred = cache(cluster.barred)
        self._left: dict[object, Leftover] = {}
        self._explained: dict[object, tuple[Mapping[str, int], str]] = {}

    def of(self, demand: Demand) -> Refusal:
        """The reason that a demand found no place."""
        source, where = demand.source if demand.source in self._cluster.ids else None, self._cluster.where[demand.id]
        kind = (where, source, demand.asks, demand.engine_id if demand.asks.max_replicas else "")
        if (kind, demand.needs) not in self._explained:
            if kind not in self._left:
                self._left[kind] = Leftover(self._targets[where], demand)
            self._explained[kind, demand.needs] = self._explain(where, demand, self._left[kind])
        return Refusal(demand.id, *self._explained[kind, demand.needs])

    def _explain(self, where: Where, demand: Demand, left: Leftover) -> tuple[Mapping[str, int], str]:
        """The causes, and a sentence. A worker that lacks room in two dimensions counts in both."""
        needs, causes = amounts(demand.needs), self._cluster.excluded + self._barred(where) + left.obstacles
        causes["the worker that it leaves"] = int(left.leaves)
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
