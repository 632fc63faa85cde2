"""Note which workers' nodes the swarm calls down. Where the swarm does not answer us, nothing is noted: that is our
trouble, and no worker's."""

from contextlib import suppress

from skyctl.domain.errors import EngineUnavailable
from skyctl.operations.shared.leadership import Term
from skyctl.store import db
from skyctl.store import node_states as store


def note_nodes(term: Term) -> None:
    """Note since when the swarm says of workers' nodes that they are down, and of which it no longer does. Raises
    LostLead, DatabaseUnavailable."""
    with term.reading() as tx:
        if not store.has_any(tx):
            return
    with suppress(EngineUnavailable):
        up = [node.id for node in term.observe(()).nodes.values() if node.is_up]
        with term.reading() as tx:
            if not store.has_news(tx, up):
                return
        with term.writing() as tx:
            if store.note(tx, up, term.context.health.engine_grace):
                db.notify_news(tx)
