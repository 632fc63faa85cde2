"""Placement: what it promises of any batch, and plain examples of what it prefers and says."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity, HealthPolicy, Load, Worker
from skyctl.domain.states import WorkerStatus
from skyctl.domain.workloads import Candidate, Demand, Placement, Refusal
from skyctl.rules.placement import plan
from skyctl.rules.prospects import prospects

NOW = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = HealthPolicy()
# A container's needs are rounded to the nearest billionth, and so are a worker's capacity and use: half of one each.
HALF_A_BILLIONTH = Fraction(1, 2 * 10**9)


def candidate(number: int, capacity: Capacity | None = None, load: Load | None = None, **facts: Any) -> Candidate:
    """An eligible worker of 4 cores, 4096 MiB and 40 GiB on which nothing runs, but for the facts given."""
    of_candidate: dict[str, Any] = {"reserved": Capacity()}
    of_candidate |= {key: facts.pop(key) for key in ("reserved", "siblings", "obstacle") if key in facts}
    worker: dict[str, Any] = {"status": WorkerStatus.ACTIVE, "swarm_node_id": f"node-{number}"} | facts
    return Candidate(
        Worker(
            id=UUID(int=number),
            name=f"worker-{number}",
            hostname="h",
            ip_address="10.0.0.1",
            capacity=capacity or Capacity(4, 4096, 40),
            load=load or Load(),
            created_at=NOW,
            updated_at=NOW,
            **worker,
        ),
        **of_candidate,
    )


def demand(number: int, cpu: float = 1, memory: float = 1024, disk: float = 10, **facts: Any) -> Demand:
    return Demand(UUID(int=number), Capacity(cpu, memory, disk), **facts)


def ids(*numbers: int) -> frozenset[UUID]:
    return frozenset(UUID(int=number) for number in numbers)


def places(demands: Sequence[Demand], candidates: Sequence[Candidate]) -> list[int]:
    """The number of the worker that each demand gets, 0 for none."""
    answers = plan(demands, candidates, POLICY)
    return [answer.worker_id.int if isinstance(answer, Placement) else 0 for answer in answers]


def refusal(wanted: Demand, candidates: Sequence[Candidate]) -> Refusal:
    [answer] = plan([wanted], candidates, POLICY)
    assert isinstance(answer, Refusal)
    return answer


# What hypothesis draws from is small, so that containers contend for the same few workers.
WORKERS, SPREADS, PLACES = st.integers(1, 5), st.sampled_from([None, None, "web", "db"]), [None, None, "a", "b"]
ODD: list[dict[str, Any]] = [{}] * 6 + [
    {"status": WorkerStatus.OFFLINE},
    {"status": WorkerStatus.UNHEALTHY},
    {"flapping_since": NOW},
    {"drain_requested_at": NOW},
    {"swarm_node_id": None},
    {"obstacle": "its node is down"},
]
PERCENT = st.sampled_from([0, 0, 10, 33.3, 50, 90, 100])


@st.composite
def candidates_of_five(draw: st.DrawFn) -> list[Candidate]:
    def some(*values: float) -> float:
        return draw(st.sampled_from(values))

    found = []
    for number in draw(st.permutations(range(1, draw(WORKERS) + 1))):
        odd: dict[str, Any] = draw(st.sampled_from(ODD))
        found.append(
            candidate(
                number,
                Capacity(some(0, 1, 2.5, 4), some(512, 2048, 4096), some(10, 40)),
                Load(draw(PERCENT), draw(PERCENT), draw(PERCENT)),
                reserved=Capacity(some(0, 0.3, 2), some(0, 256), some(0, 5)),
                siblings=draw(st.dictionaries(st.sampled_from(["web", "db"]), st.integers(1, 2))),
                metadata={"region": draw(st.sampled_from([*PLACES, 5])), "pool": draw(st.sampled_from(PLACES))},
                **odd,
            )
        )
    return found


@st.composite
def some_demands(draw: st.DrawFn) -> list[Demand]:
    return [
        demand(
            number,
            draw(st.sampled_from([0, 0.1, 0.3, 1, 2])),
            draw(st.sampled_from([64, 256, 512, 2048])),
            draw(st.sampled_from([0, 1, 10])),
            spread=draw(SPREADS),
            region=draw(st.sampled_from([*PLACES, "c"])),
            pool=draw(st.sampled_from(PLACES)),
            source=draw(st.none() | WORKERS.map(lambda n: UUID(int=n))),
            avoid=draw(st.frozensets(WORKERS.map(lambda n: UUID(int=n)), max_size=2)),
        )
        for number in draw(st.permutations(range(1, draw(st.integers(1, 12)) + 1)))
    ]


def may_go(wanted: Demand, one: Candidate) -> bool:
    """The issue's own words, room aside."""
    worker, load = one.worker, one.worker.load
    return (
        worker.status is WorkerStatus.ACTIVE
        and worker.flapping_since is None
        and worker.drain_requested_at is None
        and not one.obstacle
        and worker.swarm_node_id is not None
        and worker.id != wanted.source
        and wanted.region in (None, worker.metadata["region"])
        and wanted.pool in (None, worker.metadata["pool"])
        and load.cpu_percent <= 90
        and load.memory_percent <= 95
        and load.disk_percent <= 90
    )


Exact = tuple[Fraction, Fraction, Fraction]


def exact(capacity: Capacity) -> Exact:
    """The decimal figures that were written, without what floating point makes of them."""
    return Fraction(str(capacity.cpu_cores)), Fraction(str(capacity.memory_mb)), Fraction(str(capacity.disk_gb))


def room(one: Candidate) -> Exact:
    """Capacity less what is reserved or measured, whichever is more."""
    figures = zip(exact(one.worker.capacity), exact(one.reserved), one.worker.load[:3], strict=True)
    cpu, memory, disk = (has - max(held, has * Fraction(str(percent)) / 100) for has, held, percent in figures)
    return cpu, memory, disk


def load(one: Candidate) -> Fraction:
    """What is reserved or measured in percent, whichever is more, in all dimensions."""
    figures = zip(exact(one.worker.capacity), exact(one.reserved), one.worker.load[:3], strict=True)
    return sum((max(100 * held / (has or 1), Fraction(str(percent))) for has, held, percent in figures), Fraction())


def less(free: Exact, needs: Exact) -> Exact:
    return free[0] - needs[0], free[1] - needs[1], free[2] - needs[2]


def first_fit_decreasing(demands: Sequence[Demand], candidates: Sequence[Candidate]) -> set[UUID]:
    """Whom the packer that the rule's docstring defines places, worker after worker."""
    left = {one.worker.id: room(one) for one in candidates}
    anywhere = [one.worker for one in candidates if may_go(demand(0), one)]
    most = [max((exact(worker.capacity)[d] for worker in anywhere), default=Fraction()) or 1 for d in range(3)]

    def order(wanted: Demand) -> tuple[Any, ...]:
        needs = exact(wanted.needs)
        return -sum(need / limit for need, limit in zip(needs, most, strict=True)), needs, wanted.id

    placed = set()
    for wanted in sorted(demands, key=order):
        for one in sorted(candidates, key=lambda one: one.worker.id):
            after = less(left[one.worker.id], exact(wanted.needs))
            if may_go(wanted, one) and min(after) >= 0:
                left[one.worker.id] = after
                placed.add(wanted.id)
                break
    return placed


BATCHES = settings(max_examples=100, deadline=None)


@BATCHES
@given(demands=some_demands(), candidates=candidates_of_five())
def test_no_capacity_is_exceeded_and_nobody_goes_where_it_may_not(
    demands: list[Demand], candidates: list[Candidate]
) -> None:
    workers = {one.worker.id: one for one in candidates}
    left, count = {one.worker.id: room(one) for one in candidates}, defaultdict[UUID, int](int)
    answers = plan(demands, candidates, POLICY)
    assert [answer.id for answer in answers] == [wanted.id for wanted in demands]
    for wanted, answer in zip(demands, answers, strict=True):
        if isinstance(answer, Placement):
            assert may_go(wanted, workers[answer.worker_id])
            left[answer.worker_id] = less(left[answer.worker_id], exact(wanted.needs))
            count[answer.worker_id] += 1
    for worker_id, many in count.items():
        assert min(left[worker_id]) >= -HALF_A_BILLIONTH * (many + 2)


@BATCHES
@given(demands=some_demands(), candidates=candidates_of_five(), data=st.data())
def test_the_order_of_what_is_given_decides_nothing(
    demands: list[Demand], candidates: list[Candidate], data: st.DataObject
) -> None:
    others = data.draw(st.permutations(demands)), data.draw(st.permutations(candidates))
    answers = {answer.id: answer for answer in plan(demands, candidates, POLICY)}
    assert {answer.id: answer for answer in plan(*others, POLICY)} == answers


@BATCHES
@given(demands=some_demands(), candidates=candidates_of_five())
def test_it_places_whatever_a_packer_places(demands: list[Demand], candidates: list[Candidate]) -> None:
    placed = {answer.id for answer in plan(demands, candidates, POLICY) if isinstance(answer, Placement)}
    assert placed >= first_fit_decreasing(demands, candidates)


@BATCHES
@given(demands=some_demands(), candidates=candidates_of_five())
def test_who_is_refused_fits_nowhere_and_hears_why(demands: list[Demand], candidates: list[Candidate]) -> None:
    answers = plan(demands, candidates, POLICY)
    left = {one.worker.id: room(one) for one in candidates}
    for wanted, answer in zip(demands, answers, strict=True):
        if isinstance(answer, Placement):
            left[answer.worker_id] = less(left[answer.worker_id], exact(wanted.needs))
    for wanted, answer in zip(demands, answers, strict=True):
        if isinstance(answer, Refusal):
            eligible = [one.worker.id for one in candidates if may_go(wanted, one)]
            lacks = [less(left[worker_id], exact(wanted.needs)) for worker_id in eligible]
            assert all(min(after) < 0 for after in lacks), answer
            for dimension, name in enumerate(("CPU", "memory", "disk")):
                assert answer.causes.get(f"no room: {name}", 0) == sum(after[dimension] < 0 for after in lacks)
            without = sum(count for cause, count in answer.causes.items() if not cause.startswith("no room"))
            assert without + len(eligible) == len(candidates)
            assert answer.reason.startswith("no room: worker-" if eligible else "no worker is eligible: ")


@BATCHES
@given(wanted=some_demands(), candidates=candidates_of_five())
def test_one_container_gets_the_best_that_has_room(wanted: list[Demand], candidates: list[Candidate]) -> None:
    """First not where it failed, then away from its siblings, then by load, then by id."""
    one = wanted[0]
    fits = [c for c in candidates if may_go(one, c) and min(less(room(c), exact(one.needs))) >= 0]
    best = min(
        fits,
        default=None,
        key=lambda c: (
            c.worker.id in one.avoid,
            c.siblings.get(one.spread or "", 0),
            load(c),
            c.worker.id,
        ),
    )
    assert places([one], candidates) == [best.worker.id.int if best else 0]


@BATCHES
@given(
    many=st.integers(1, 8),
    workers=st.integers(1, 8),
    there=st.integers(0, 3),
    avoided=st.integers(0, 2),
    others=st.integers(0, 5),
    loads=st.lists(PERCENT.map(lambda p: min(p, 50)), min_size=8, max_size=8),
)
def test_siblings_spread_evenly_where_there_is_room(
    many: int, workers: int, there: int, avoided: int, others: int, loads: list[float]
) -> None:
    """Large spreads and small ones, siblings that are there already, workers to avoid, strangers in between."""
    candidates = [
        candidate(n, Capacity(100, 1e5, 1e3), Load(loads[n - 1]), siblings={"web": 1} if n <= there else {})
        for n in range(1, workers + 1)
    ]
    avoid = ids(*range(workers, max(workers - avoided, 1), -1))
    demands = [demand(n, spread="web", avoid=avoid) for n in range(1, many + 1)]
    demands += [demand(100 + n) for n in range(others)]
    counts = [int(n <= there) for n in range(1, workers + 1)]
    for number in places(demands, candidates)[:many]:
        assert UUID(int=number) not in avoid
        counts[number - 1] += 1
    allowed = [count for n, count in enumerate(counts, 1) if UUID(int=n) not in avoid]
    assert max(allowed) - min(allowed) <= 1


def test_a_container_goes_where_it_fits_although_the_least_loaded_worker_lacks_room() -> None:
    idle_but_small = candidate(1, Capacity(1, 1024, 10))
    busy_but_large = candidate(2, Capacity(16, 65536, 500), Load(60, 60, 60))
    assert places([demand(1, memory=2048)], [idle_but_small, busy_but_large]) == [2]


def test_a_batch_does_not_pile_onto_one_worker() -> None:
    assert sorted(places([demand(n) for n in range(1, 5)], [candidate(n) for n in (1, 2, 3, 4)])) == [1, 2, 3, 4]


@pytest.mark.parametrize("has_heard", [False, True])
def test_containers_that_idle_do_not_pile_up_one_after_the_other(has_heard: bool) -> None:
    """Twenty of half a core each, deployed one by one: what they reserve counts, whatever a heartbeat tells since."""
    workers = {n: candidate(n, Capacity(16, 65536, 500), Load(4 + n / 2, 5, 5)) for n in range(1, 6)}
    for number in range(20):
        [chosen] = places([demand(number, 0.5, 256, 1)], list(workers.values()))
        arrived = with_arriving(workers[chosen], demand(number, 0.5, 256, 1))
        workers[chosen] = replace(arrived, unmeasured=Capacity()) if has_heard else arrived
    assert {n: one.reserved.cpu_cores for n, one in workers.items()} == dict.fromkeys(range(1, 6), 2)


def test_what_is_reserved_counts_as_much_as_what_is_measured() -> None:
    booked, busy, free = candidate(1, reserved=Capacity(4, 0, 0)), candidate(2, load=Load(80, 0, 0)), candidate(3)
    assert places([demand(1)], [booked, busy]) == [0]
    assert places([demand(1)], [booked, busy, free]) == [3]


def test_three_tenths_fit_into_what_three_tenths_are() -> None:
    """In floating point 0.3 - 0.1 - 0.1 is less than 0.1."""
    assert places([demand(n, 0.1, 0, 0) for n in (1, 2, 3)], [candidate(1, Capacity(0.3, 1, 1))]) == [1, 1, 1]


def test_it_packs_where_spreading_leaves_one_out() -> None:
    """By load they go 6 + 3 and 4 + 4, which leaves the other 3 out; packed they go 6 + 4 and 4 + 3 + 3."""
    workers = [candidate(n, Capacity(100, 10, 100)) for n in (1, 2)]
    demands = [demand(n, 0, memory, 0) for n, memory in enumerate((6, 4, 4, 3, 3), 1)]
    assert places(demands, workers) == [1, 1, 2, 2, 2]


def test_what_no_packer_places_packs_nobody_else() -> None:
    assert places([demand(1), demand(2), demand(3, memory=9999)], [candidate(1), candidate(2)]) == [1, 2, 0]


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"status": WorkerStatus.OFFLINE}, "offline"),
        ({"status": WorkerStatus.PENDING}, "never heard from"),
        ({"status": WorkerStatus.DRAINING}, "draining"),
        ({"drain_requested_at": NOW}, "draining"),
        ({"status": WorkerStatus.UNHEALTHY}, "unhealthy"),
        ({"load": Load(91, 0, 0)}, "unhealthy"),
        ({"flapping_since": NOW}, "flapping"),
        ({"swarm_node_id": None}, "not in the swarm"),
        ({"obstacle": "its node is down"}, "its node is down"),
        ({"metadata": {"region": "us"}}, "other region"),
        ({"metadata": {"region": 5}}, "other region"),
        ({"metadata": {"region": "eu"}}, "other pool"),
    ],
)
def test_who_is_not_eligible_is_counted_by_cause(facts: dict[str, Any], cause: str) -> None:
    refused = refusal(demand(1, region="eu", pool="gpu"), [candidate(1, **facts)])
    assert refused.causes == {cause: 1}
    assert refused.reason == f"no worker is eligible: 1 {cause}"


def test_a_container_does_not_return_to_the_worker_that_it_leaves() -> None:
    refused = refusal(demand(1, source=UUID(int=1)), [candidate(1)])
    assert refused.reason == "no worker is eligible: 1 the worker that it leaves"
    assert refusal(demand(1), []).reason == "no worker is eligible: there is none"


def test_a_refusal_names_what_the_nearest_worker_lacks() -> None:
    nearest = candidate(3, reserved=Capacity(0, 2560, 0))
    workers = [candidate(1, reserved=Capacity(4, 4096, 0)), candidate(2, status=WorkerStatus.OFFLINE), nearest]
    refused = refusal(demand(1, memory=2048), workers)
    assert refused.causes == {"offline": 1, "no room: CPU": 1, "no room: memory": 2}
    assert refused.reason == "no room: worker-3 comes nearest and lacks 512 MiB of memory (needs 2048, has 1536 free)"
    both = refusal(demand(1, cpu=4.5, disk=40.01), [candidate(1)])
    assert both.reason == (
        "no room: worker-1 comes nearest and lacks 0.5 CPU cores (needs 4.5, has 4 free)"
        " and 0.01 GiB of disk (needs 40.01, has 40 free)"
    )


def test_a_placement_names_the_figure_that_decided() -> None:
    def reason(wanted: Demand, *candidates: Candidate) -> str:
        [answer] = plan([wanted], candidates, POLICY)
        return answer.reason

    one, two = candidate(1, load=Load(10, 10, 10), siblings={"web": 2}), candidate(2, status=WorkerStatus.OFFLINE)
    assert reason(demand(1), one, two) == "lowest load: 35 % with it, among 1 eligible"
    assert (
        reason(demand(1, spread="web"), one) == "fewest siblings (2), then lowest load: 35 % with it, among 1 eligible"
    )
    assert reason(demand(1, avoid=ids(1)), one).startswith("where it failed lately, for want of another: lowest load")


@BATCHES
@given(
    sizes=st.lists(st.sampled_from([0.1, 0.3, 0.5, 1, 3]), min_size=1, max_size=10),
    loads=st.lists(PERCENT.map(lambda p: min(p, 50)), min_size=1, max_size=4),
    spreads=st.lists(SPREADS, min_size=10, max_size=10),
    into_one=st.integers(1, 2),
)
def test_a_batch_that_is_placed_bit_by_bit_goes_where_it_would_at_once(
    sizes: list[float], loads: list[float], spreads: list[str | None], into_one: int
) -> None:
    """As a drain does it: a few begin, in their turn, at most so many into one worker, and no heartbeat tells of
    them yet."""
    demands = [demand(n, cpu, cpu * 100, 0, spread=spreads[n]) for n, cpu in enumerate(sizes)]
    workers = {UUID(int=n): candidate(n, Capacity(16, 1e4, 1e3), Load(load)) for n, load in enumerate(loads, 1)}
    at_once = {answer.id: answer for answer in plan(demands, list(workers.values()), POLICY)}
    bit_by_bit: dict[UUID, UUID] = {}
    begun: Counter[UUID] = Counter([UUID(int=0)])
    while begun:
        waiting = [each for each in demands if each.id not in bit_by_bit]
        answers = [each for each in plan(waiting, list(workers.values()), POLICY) if isinstance(each, Placement)]
        begun = Counter()
        for answer in sorted(answers, key=lambda each: each.turn):
            if begun[answer.worker_id] < into_one:
                begun[answer.worker_id] += 1
                bit_by_bit[answer.id] = answer.worker_id
                workers[answer.worker_id] = with_arriving(workers[answer.worker_id], demands[answer.id.int])
    assert bit_by_bit == {key: each.worker_id for key, each in at_once.items() if isinstance(each, Placement)}


def with_arriving(one: Candidate, placed: Demand) -> Candidate:
    """A worker with one more container, of which no heartbeat tells yet."""
    held, more = one.reserved, placed.needs
    whole = Capacity(held.cpu_cores + more.cpu_cores, held.memory_mb + more.memory_mb, held.disk_gb + more.disk_gb)
    siblings = dict(one.siblings)
    if placed.spread:
        siblings[placed.spread] = siblings.get(placed.spread, 0) + 1
    return replace(one, reserved=whole, unmeasured=whole, siblings=siblings)


def test_what_no_heartbeat_tells_takes_room_beside_what_is_measured() -> None:
    half = candidate(1, Capacity(10, 1e4, 1e3), Load(50, 0, 0))
    three = [demand(n, 3, 0, 0) for n in (1, 2)]
    assert places(three, [half]) == [1, 0]
    assert places(three[1:], [with_arriving(half, three[0])]) == [0]


@BATCHES
@given(wanted=some_demands(), candidates=candidates_of_five())
def test_the_best_prospect_is_the_place_and_all_others_are_told(
    wanted: list[Demand], candidates: list[Candidate]
) -> None:
    one = wanted[0]
    found = prospects(one, candidates, POLICY)
    assert {each.worker_id for each in found} == {each.worker.id for each in candidates}
    may = [each for each in found if not each.exclusion]
    assert found[: len(may)] == may
    assert places([one], candidates) == [may[0].worker_id.int if may else 0]
    [answer] = plan([one], candidates, POLICY)
    if isinstance(answer, Placement):
        assert f"{may[0].load_percent:.0f} % with it" in answer.reason
    fits = {each.worker.id for each in candidates if may_go(one, each) and min(less(room(each), exact(one.needs))) >= 0}
    assert {each.worker_id for each in may} == fits
