"""Remove what is over and older than it is to be kept, some rows at a time."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from skyctl.domain.errors import DatabaseRefused
from skyctl.domain.retention import FOR_EVER, Pruned
from skyctl.operations.shared.leadership import Term
from skyctl.store import counts, db, monitor_requests, retention

MOST_ROWS = 1000  # of one transaction
MOST_STEPS = 5  # of each kind
REQUESTS_KEPT = timedelta(minutes=10)  # many times what anybody waits for their outcome
TIDIED: Mapping[str, Callable[[db.Transaction], None]] = {
    "worker counts": counts.compact,
    "monitor requests": partial(monitor_requests.forget, age=REQUESTS_KEPT),
}


def prune(term: Term) -> Pruned:
    """Remove some of what is older than it is to be kept, make one row of the count of workers, and forget what was
    asked of monitors. Raises LostLead, DatabaseUnavailable.

    A row that the database refuses to remove, since something of the panel's refers to it, keeps no other from its
    turn.
    """
    policy = term.context.retention
    removed: list[tuple[str, int]] = []
    refused: list[tuple[str, str]] = []
    is_more = False
    for kind in retention.KINDS:
        if kind.kept_for(policy) == FOR_EVER:
            continue
        gone, goes_on, refusal = _prune_kind(term, kind)
        refused += [(kind.name, refusal)] if refusal else []
        is_more = is_more or (goes_on and not refusal)
        removed += [(kind.name, gone)] if gone else []
    for name, tidy in TIDIED.items():
        try:
            with term.writing() as tx:
                tidy(tx)
        except DatabaseRefused as error:
            refused.append((name, error.message))
    return Pruned(removed, refused, is_more)


def _prune_kind(term: Term, kind: retention.Kind) -> tuple[int, bool, str]:
    """Remove some rows of a kind; return how many, whether there is more to look at, and why one was refused: that one
    alone is passed over."""
    gone, goes_on, refusal, most, steps = 0, True, "", MOST_ROWS, MOST_STEPS
    passes_over = False
    while goes_on and steps:
        try:
            with term.writing() as tx:
                went, goes_on = retention.step(tx, kind, term.context.retention, most, passes_over=passes_over)
        except DatabaseRefused as error:
            if passes_over:
                return gone, False, error.message
            refusal, passes_over, most = error.message, most == 1, max(1, most // 2)
            continue
        gone, steps, passes_over, most = gone + went, steps - 1, False, min(MOST_ROWS, 2 * most)
    return gone, goes_on, refusal
