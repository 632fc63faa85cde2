"""Remove what is over and older than it is to be kept, some rows at a time."""

from skyctl.domain.errors import DatabaseRefused
from skyctl.domain.retention import FOR_EVER, Pruned
from skyctl.operations.shared.leadership import Term
from skyctl.store import retention

MOST_ROWS = 1000  # of one transaction
MOST_STEPS = 5  # of each kind


def prune(term: Term) -> Pruned:
    """Remove some of what is older than it is to be kept. Raises LostLead, DatabaseUnavailable.

    A kind of which the database refuses to remove rows, since something of the panel's refers to them, keeps no other
    from its turn.
    """
    policy = term.context.retention
    removed: list[tuple[str, int]] = []
    refused: list[tuple[str, str]] = []
    is_more = False
    for kind in retention.KINDS:
        if kind.kept_for(policy) == FOR_EVER:
            continue
        gone, goes_on = 0, True
        try:
            for _ in range(MOST_STEPS):
                with term.writing() as tx:
                    went, goes_on = retention.step(tx, kind, policy, MOST_ROWS)
                gone += went
                if not goes_on:
                    break
        except DatabaseRefused as error:
            refused.append((kind.name, error.message))
            goes_on = False
        is_more = is_more or goes_on
        removed += [(kind.name, gone)] if gone else []
    return Pruned(removed, refused, is_more)
