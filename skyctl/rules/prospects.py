"""Where a container could go: every worker, with the rule that excludes it, or what it is ranked by."""

from collections.abc import Iterable
from uuid import UUID

from skyctl.domain.cluster import HealthPolicy
from skyctl.domain.workloads import Candidate, Demand, Prospect
from skyctl.rules import fit, placement
from skyctl.rules.targets import Rank, Target, amounts, target_for

IS_THERE, IS_COMING = "it is there", "it is on its way there"
NO_NODE = "its node is not known"


def prospects(
    demand: Demand, candidates: Iterable[Candidate], policy: HealthPolicy, target_id: UUID | None = None
) -> list[Prospect]:
    """Every worker as a place for a container that we place: those where it may go, the best first, so that the first
    is the one that `placement.plan` chooses; then the others, by name. `target_id` is where it is on its way to."""
    ordered = sorted(candidates, key=lambda candidate: candidate.worker.id.int)
    cluster = placement.Cluster(ordered, policy, [demand])
    found: list[tuple[tuple[bool, Rank], Prospect]] = []
    excluded = []
    for place, candidate in enumerate(ordered):
        target = target_for(candidate, place, policy)
        reason = placement.exclusion(candidate, policy)
        if candidate.worker.id in (demand.source, target_id):
            here = IS_THERE if candidate.worker.id == demand.source else IS_COMING
            reason = "; ".join(each for each in (here, reason) if each)
        reason = reason or _obstacle(cluster, demand, target)
        if reason:
            excluded.append(Prospect(candidate.worker.id, candidate.worker.name, reason))
            continue
        failed, siblings = candidate.worker.id in demand.avoid, target.siblings.get(demand.spread, 0)
        rank = (siblings, target.rounded_load, place)
        target.take(amounts(demand.needs), demand)
        prospect = Prospect(candidate.worker.id, candidate.worker.name, "", failed, siblings, target.load)
        found.append(((failed, rank), prospect))
    best_first = [each for _, each in sorted(found, key=lambda pair: pair[0])]
    return best_first + _by_name(excluded)


def of_swarm(demand: Demand, candidates: Iterable[Candidate]) -> list[Prospect]:
    """Every worker as a place for a container that the swarm places: by its rules alone, which do not know ours."""
    found = [
        Prospect(
            each.worker.id,
            each.worker.name,
            fit.why_not(demand.asks, demand.engine_id, each.node, each.use) if each.node and each.use else NO_NODE,
        )
        for each in candidates
    ]
    return _by_name(each for each in found if not each.exclusion) + _by_name(each for each in found if each.exclusion)


def _obstacle(cluster: placement.Cluster, demand: Demand, target: Target) -> str:
    if bar := cluster.bar(target.worker, cluster.where[demand.id]) or target.obstacle(demand):
        return bar
    needs = amounts(demand.needs)
    return "" if target.lacking(needs) is None else f"no room: it lacks {placement.lack(target.room, needs)}"


def _by_name(prospects: Iterable[Prospect]) -> list[Prospect]:
    return sorted(prospects, key=lambda each: (each.worker_name, each.worker_id))
