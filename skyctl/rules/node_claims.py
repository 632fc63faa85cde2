"""Claims of swarm nodes: a worker says which node it is, every node can see the ids of all others, and so a claim
counts only once the engine has shown that it is true.

Read from the top, the first line that fits decides.

    the swarm has no such node                            unknown; it may be about to join
    an administrator says that it is this worker's        confirmed, from whomever had it
    it is confirmed as another worker's                   contradicts
    it manages the swarm                                  contradicts: a manager is never somebody's by a claim
    its hostname is another one                           contradicts
    the swarm does not say from where it hears it         unknown
    the worker registered from another address            contradicts
    another worker's claim of it is as good               contradicts, both
    else                                                  confirmed

The swarm writes down from where it hears a node, and we from where a registration came: a host cannot choose either.
What a host says its address is counts only where nothing else is known: in rows that the panel wrote, or an older
version.
"""

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.addresses import client_address
from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineNode, NodeClaim


class Standing(StrEnum):
    """What the engine says to a claim."""

    CONFIRMED = "confirmed"
    UNKNOWN = "unknown"
    CONTRADICTS = "contradicts"


class ClaimVerdict(NamedTuple):
    """The standing of a claim, and why it does not count; empty where it does."""

    standing: Standing
    trouble: str = ""


CONFIRMED = ClaimVerdict(Standing.CONFIRMED)


def judge(
    claims: Sequence[NodeClaim], nodes: Mapping[str, EngineNode], holders: Mapping[str, str]
) -> list[ClaimVerdict]:
    """Judge the claims that are not confirmed, in their order. `holders` are the names of the workers whose nodes are,
    by the node's id."""
    verdicts = [_judge(claim, nodes.get(claim.node_id), holders.get(claim.node_id)) for claim in claims]
    good = Counter(
        claim.node_id for claim, verdict in zip(claims, verdicts, strict=True) if verdict.standing is Standing.CONFIRMED
    )
    return [
        ClaimVerdict(Standing.CONTRADICTS, "another worker claims the same node with the same hostname and address")
        if verdict == CONFIRMED and good[claim.node_id] > 1 and claim.allowed != claim.node_id
        else verdict
        for claim, verdict in zip(claims, verdicts, strict=True)
    ]


def _judge(claim: NodeClaim, node: EngineNode | None, holder: str | None) -> ClaimVerdict:
    if node is None:
        return ClaimVerdict(Standing.UNKNOWN, f"the swarm has no node {claim.node_id}")
    if claim.allowed == node.id:
        return CONFIRMED
    if holder is not None:
        return ClaimVerdict(Standing.CONTRADICTS, f"the node is that of worker {holder}")
    if node.is_manager:
        return ClaimVerdict(Standing.CONTRADICTS, "the node is a manager of the swarm")
    if node.hostname != claim.hostname:
        return ClaimVerdict(
            Standing.CONTRADICTS, f"the node's hostname is {node.hostname}, the worker's {claim.hostname}"
        )
    if not address(node.address):
        return ClaimVerdict(Standing.UNKNOWN, "the swarm does not say from which address it hears the node")
    seen = claim.came_from or claim.ip_address
    if address(seen) != address(node.address):
        how = "registered from" if claim.came_from else "is said to be at"
        return ClaimVerdict(Standing.CONTRADICTS, f"the node is at {node.address}, the worker {how} {seen}")
    return CONFIRMED


def address(text: str) -> str:
    """Return an address in the one form in which it can be compared; empty where it is none, or that of no host."""
    known = client_address(text)
    return "" if known is None or ipaddress.ip_address(known).is_unspecified else known


def may_set_availability(node: EngineNode, worker_id: UUID, allowed: Mapping[UUID, str]) -> bool:
    """Tell whether a drain of a worker may pause its node, which was confirmed: not where that manages the swarm by
    now, unless an administrator says that it is this worker's."""
    return not node.is_manager or allowed.get(worker_id) == node.id


def bounded(capacity: Capacity, node: EngineNode) -> Capacity:
    """Return what a worker says it has, at most what the engine says that its node has. Of disks it says nothing."""
    has = node.capacity
    return replace(
        capacity,
        cpu_cores=min(capacity.cpu_cores, has.cpu_cores or capacity.cpu_cores),
        memory_mb=min(capacity.memory_mb, has.memory_mb or capacity.memory_mb),
    )
