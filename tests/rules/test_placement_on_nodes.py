"""Placement by what Swarm finds on the nodes: who may not go where, what a batch puts there, and what is said of it."""

from dataclasses import replace
from typing import Any

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineNode, HostPort, NodeUse, Requirements, Reserved
from skyctl.domain.workloads import Candidate
from tests.rules.test_placement import candidate, demand, places, refusal


def on_node(number: int, use: NodeUse, **facts: Any) -> Candidate:
    node = EngineNode(f"node-{number}", "h", is_up=True, availability="active", **facts)
    return replace(candidate(number), node=node, use=use)


def test_nobody_goes_where_swarm_would_not_start_it() -> None:
    free = NodeUse(10**10, 10**12)
    zone, port = Requirements(constraints=("node.labels.zone==a",)), Requirements(host_ports=(HostPort(80),))
    workers = [
        on_node(1, free),
        on_node(2, NodeUse(10**10, 10**12, host_ports=frozenset({HostPort(80)})), labels={"zone": "a"}),
        on_node(3, free, labels={"zone": "a"}),
    ]
    assert places([demand(1, asks=zone), demand(2, asks=zone), demand(3, asks=zone)], workers) == [2, 3, 2]
    assert places([demand(1, asks=port), demand(2, asks=port), demand(3, asks=port)], workers) == [1, 3, 0]
    both = replace(zone, host_ports=port.host_ports)
    assert places([demand(1, asks=both), demand(2, asks=both)], workers) == [3, 0]
    refused = refusal(demand(1, asks=both), workers[:2])
    assert refused.reason == (
        "no worker is eligible: 1 host-mode port already in use: 80,"
        " 1 scheduling constraints not satisfied: node.labels.zone==a"
    )
    assert sum(refused.causes.values()) == 2


def test_what_a_batch_puts_on_a_node_counts_for_the_rest_of_it() -> None:
    use = NodeUse(2 * 10**9, 0, {"gpu": 1})
    gpu, core = Requirements(reserved=Reserved(0, 0, (("gpu", 1),))), Requirements(reserved=Reserved(10**9))
    assert places([demand(n, 0.1, 1, 1, asks=gpu) for n in (1, 2)], [on_node(1, use)]) == [1, 0]
    assert places([demand(n, 0.1, 1, 1, asks=core) for n in (1, 2, 3)], [on_node(1, use)]) == [1, 1, 0]
    single = Requirements(max_replicas=1)
    two = [demand(n, 0.1, 1, 1, asks=single, engine_id="shop") for n in (1, 2)]
    assert places(two, [on_node(1, use)]) == [1, 0]
    refused = refusal(demand(1, asks=Requirements(reserved=Reserved(3 * 10**9))), [on_node(1, use)])
    assert refused.reason == ("no worker is eligible: 1 insufficient resources: 3 CPU cores cannot be reserved")


def test_who_lacks_room_is_named_beside_those_that_swarm_would_not_take() -> None:
    full = replace(on_node(2, NodeUse(10**10, 10**12)), reserved=Capacity(4, 0, 0))
    taken = on_node(1, NodeUse(10**10, 10**12, host_ports=frozenset({HostPort(80)})))
    refused = refusal(demand(1, asks=Requirements(host_ports=(HostPort(80),))), [taken, full])
    assert refused.causes == {"host-mode port already in use: 80": 1, "no room: CPU": 1}
    assert refused.reason.startswith("no room: worker-2 comes nearest")
