"""What the leading monitor does at the engine for `serve`, which may not ask it: tell how hosts join, and take nodes of
removed workers out of the swarm."""

from typing import NamedTuple

from skyctl.operations.shared.leadership import Term
from skyctl.operations.shared.leaving import leave_swarm
from skyctl.store import db, drains, swarm

MOST_AT_ONCE = 20


class NodeOutcome(NamedTuple):
    """What became of a node that was to leave the swarm: why it stays, empty where it left."""

    node_id: str
    worker_name: str
    stays: str


def tell_join(term: Term) -> None:
    """Write down how a host joins the swarm, where that has changed. Raises LostLead, EngineUnavailable."""
    join = term.worker_join()
    with term.reading() as tx:
        known = swarm.known_join(tx)
    if join is None and known and known.join and term.engine_state() is None:
        return  # an engine that starts again is not one without a swarm
    if known is None or known.join != join:
        with term.writing() as tx:
            swarm.note_join(tx, join)


def remove_nodes(term: Term) -> list[NodeOutcome]:
    """Take the nodes of removed workers out of the swarm, some at a time; return what became of each.

    A node that is a worker's again stays, and so does one with containers of others. Raises LostLead,
    EngineUnavailable.
    """
    with term.reading() as tx:
        asked = swarm.removals(tx, MOST_AT_ONCE)
    if not asked:
        return []
    seen, outcomes = term.observe(), []
    for node in asked:
        stays = (
            "it is a worker's again"
            if node.is_a_workers
            else leave_swarm(term.engine(), seen, node.node_id, is_closed=node.is_closed)
        )
        outcomes.append(NodeOutcome(node.node_id, node.worker_name, stays))
    with term.writing() as tx:
        swarm.end_removals(tx, [outcome.node_id for outcome in outcomes])
        # what the drain of the former worker closed, the present one's opens, unless it is drained as well
        if taken_over := [node.node_id for node in asked if node.is_a_workers and node.is_closed]:
            drains.hold_heartbeats(tx)
            drains.take_over_closed(tx, taken_over)
            db.notify_news(tx)
    return outcomes
