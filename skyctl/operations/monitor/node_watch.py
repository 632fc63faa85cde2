"""Note which workers' nodes the swarm calls down, and which it was told to empty. Where the swarm does not answer us,
nothing is noted of them: that is our trouble, and no worker's."""

from collections.abc import Sequence

from skyctl.domain.cluster import Event
from skyctl.domain.drains import DrainOptions
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.events import EventKind
from skyctl.operations.shared.leadership import Term
from skyctl.store import db, drains, events
from skyctl.store import node_states as store

CLOSED = "its node was set to drain in the swarm"
OPENED = "its node was set to active in the swarm"


def note_nodes(term: Term) -> tuple[list[Event], EngineUnavailable | None]:
    """Note since when the swarm says of workers' nodes that they are down, and of which it no longer does; which of
    them somebody has set to `drain` there, and whose drain that way is over. Return the events, and why the swarm could
    not be asked, where it could not. Raises LostLead, DatabaseUnavailable."""
    with term.reading() as tx:
        if not store.has_any(tx):
            return [], None
    try:
        nodes = term.observe(()).nodes
    except EngineUnavailable as error:
        return [], error
    up = [node.id for node in nodes.values() if node.is_up]
    closed = [node.id for node in nodes.values() if node.availability == "drain"]
    opened = [node.id for node in nodes.values() if node.availability == "active"]
    with term.reading() as tx:
        is_any_down_or_up = store.has_news(tx, up)
        is_any_drained = drains.said_by_swarm(tx, closed) or drains.no_longer_said(tx, opened)
    if is_any_down_or_up:
        with term.writing() as tx:
            if store.note(tx, up, term.context.health.engine_grace):
                db.notify_news(tx)
    return (_note_drained(term, closed, opened) if is_any_drained else []), None


def _note_drained(term: Term, closed: Sequence[str], opened: Sequence[str]) -> list[Event]:
    """A node that somebody sets to `drain` in the swarm is a drain asked for, until it takes new containers again."""
    with term.recording() as tx:
        drains.hold_heartbeats(tx)
        begun, over = drains.said_by_swarm(tx, closed), drains.no_longer_said(tx, opened)
        for worker_id in begun:
            drains.request(tx, worker_id, DrainOptions())
            drains.note_said_by_swarm(tx, worker_id)
        for worker_id in over:
            drains.end(tx, worker_id)
        drains.note_nodes(tx, [], list(over))
        db.notify_news(tx)
        kinds = ((EventKind.DRAIN_REQUESTED, begun, CLOSED), (EventKind.DRAIN_CANCELLED, over, OPENED))
        return events.append(
            tx,
            *(
                Event(kind, worker_id, name, "swarm", reason=reason, term=term.number)
                for kind, workers, reason in kinds
                for worker_id, name in workers.items()
            ),
        )
