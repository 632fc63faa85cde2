"""Rotation of workers' tokens: which are due, and the new ones that their next heartbeats' replies carry."""

from skyctl.domain.cluster import Event, Lease
from skyctl.domain.events import EventKind
from skyctl.operations.shared import token_issue
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leadership import TTL
from skyctl.store import db, events, leases, tokens

MOST_AT_ONCE = 200


def rotate_due(context: Context, lease: Lease) -> list[Event]:
    """Let the tokens be replaced that are too old, or signed by a secret that is about to go, or gone; so many at once.

    Raises LostLead, DatabaseUnavailable.
    """
    days = context.token_max_age
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        keys = context.keys.accepted(db.now(tx))
        events.lock(tx)
        found = tokens.due(tx, days or None, keys[0].id, MOST_AT_ONCE, unknown_too=len(keys) > 1)
        for worker in found:
            token_issue.replace_token(context, tx, worker.id)
        told = [
            Event(EventKind.TOKEN_ROTATION_DUE, worker.id, worker.name, "monitor", term=lease.term) for worker in found
        ]
        return events.append(tx, *told)
