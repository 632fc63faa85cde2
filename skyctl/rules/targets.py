"""The eligible workers as a batch of placements fills them, and a queue of them, the best first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from skyctl.domain.cluster import Capacity, HealthPolicy, Worker
from skyctl.domain.engine import NodeUse
from skyctl.domain.workloads import Candidate, Demand
from skyctl.rules import fit, health

# Amounts are whole billionths of a core, a MiB and a GiB: three containers of 0.1 cores fit where there are 0.3.
UNIT = 10**9
Amounts = tuple[int, int, int]
Rank = tuple[int, float, int]
# A load is no lower by what sums of the same amounts in another order differ.
LOAD_DIGITS = 6


def amounts(capacity: Capacity) -> Amounts:
    """A capacity in whole units, rounded to the nearest."""
    return (round(capacity.cpu_cores * UNIT), round(capacity.memory_mb * UNIT), round(capacity.disk_gb * UNIT))


@dataclass(slots=True)
class Target:
    """An eligible worker as the batch fills it: its `place` in the order of ids, its room, its load in percent, and as
    it is compared, what is left of its node."""

    worker: Worker
    place: int
    capacity: Amounts
    room: Amounts
    load: float
    rounded_load: float
    siblings: dict[str | None, int]
    use: NodeUse | None

    def lacking(self, needs: Amounts) -> int | None:
        """The first dimension without room for so much."""
        for dimension in (0, 1, 2):
            if self.room[dimension] < needs[dimension]:
                return dimension
        return None

    def obstacle(self, demand: Demand) -> str:
        """What a container wants of the node that others have; empty for nothing."""
        return fit.no_room(demand.asks, demand.engine_id, self.use) if self.use else ""

    def take(self, needs: Amounts, demand: Demand) -> None:
        """Puts a container there."""
        (cpu, memory, disk), room = needs, self.room
        self.room = (room[0] - cpu, room[1] - memory, room[2] - disk)
        self.load += load_of(needs, self.capacity)
        self.rounded_load = round(self.load, LOAD_DIGITS)
        if self.use:
            self.use = fit.with_container(self.use, demand.asks, demand.engine_id)
        if demand.spread is not None:
            self.siblings[demand.spread] = self.siblings.get(demand.spread, 0) + 1


def load_of(needs: Amounts, most: Amounts) -> float:
    """The load that a container is, in percent of a worker."""
    # a worker without any of a dimension takes only what needs none of it
    return (needs[0] / (most[0] or 1) + needs[1] / (most[1] or 1) + needs[2] / (most[2] or 1)) * 100 / 3


def target_for(candidate: Candidate, place: int, policy: HealthPolicy) -> Target:
    """A worker before the batch."""
    worker, held = candidate.worker, amounts(candidate.reserved)
    has, percents = amounts(worker.capacity), health.lately(worker, policy)[:3]
    used = [round(amount * percent / 100) for amount, percent in zip(has, percents, strict=True)]
    fresh, most = amounts(candidate.unmeasured), [amount or 1 for amount in has]
    cpu, memory, disk = (max(booked, use + new) for booked, use, new in zip(held, used, fresh, strict=True))
    room = (has[0] - cpu, has[1] - memory, has[2] - disk)
    shares = zip(held, fresh, most, percents, strict=True)
    load = sum(max(100 * booked / whole, percent + 100 * new / whole) for booked, new, whole, percent in shares) / 3
    return Target(
        worker, place, has, room, load, round(load, LOAD_DIGITS), dict(candidate.siblings.items()), candidate.use
    )


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
        self._ready = [(*rank(target), target) for target in targets]
        self._waiting: tuple[list[tuple[int, int, Target]], ...] = ([], [], [])
        heapify(self._ready)

    def pop(self, needs: Amounts) -> Target | None:
        """Takes the best worker with room out of the queue."""
        for need, waiting in zip(needs, self._waiting, strict=True):
            while waiting and need <= -waiting[0][0]:
                self.push(heappop(waiting)[2])
        while self._ready:
            siblings, load, place, best = heappop(self._ready)
            lacking = best.lacking(needs)
            if lacking is not None:
                heappush(self._waiting[lacking], (-best.room[lacking], place, best))
            elif (siblings, load, place) == self.rank(best):
                return best
            else:
                self.push(best)
        return None

    def push(self, target: Target) -> None:
        """Puts a worker back."""
        heappush(self._ready, (*self.rank(target), target))
