"""Nodes of workers whose agent never says which one it is, as the panel's: by what the engine shows of each node.

A worker is matched with the one node of the swarm at its address, where that has its hostname, and where no other
worker is at that address or claims that node. Nothing is guessed: each of these that does not hold leaves the worker
without a node. A match is a claim like any other, which the monitor confirms or, of a manager's node, an administrator.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.engine import EngineNode, Place
from skyctl.rules.node_claims import address


class Match(NamedTuple):
    """The node of a worker; None where it has none, and why. With both, an administrator has to say that it is its."""

    node_id: str | None
    trouble: str = ""


def match(places: Sequence[Place], nodes: Mapping[str, EngineNode]) -> dict[UUID, Match]:
    """Match the workers that say nothing of a node and have none in the swarm; `places` are all workers."""
    nodes_at, workers_at = defaultdict[str, list[EngineNode]](list), defaultdict[str, list[Place]](list)
    claimants: dict[str, str] = {}
    for node in nodes.values():
        nodes_at[address(node.address)].append(node)
    for place in places:
        workers_at[address(place.address)].append(place)
        claimants |= dict.fromkeys(place.node_ids, place.name)
    return {
        place.worker_id: _match(place, nodes_at[address(place.address)], workers_at[address(place.address)], claimants)
        for place in places
        if place.is_silent and not nodes.keys() & set(place.node_ids)
    }


def _match(place: Place, fitting: Sequence[EngineNode], there: Sequence[Place], claimants: Mapping[str, str]) -> Match:
    at = address(place.address)
    if not at:
        return Match(None, "its address is not known")
    if not fitting:
        return Match(None, f"the swarm has no node at {at}")
    if len(fitting) > 1:
        return Match(None, f"{len(fitting)} nodes of the swarm are at {at}")
    others = [other.name for other in there if other.worker_id != place.worker_id]
    [node] = fitting
    if others:
        return Match(None, f"worker {others[0]} is at {at}, too")
    if node.id in claimants:
        return Match(None, f"worker {claimants[node.id]} claims the node at {at}")
    if node.hostname != place.hostname:
        return Match(None, f"the node at {at} is called {node.hostname}, the worker {place.hostname}")
    if node.is_manager:
        return Match(node.id, "the node is a manager of the swarm")
    return Match(node.id)
