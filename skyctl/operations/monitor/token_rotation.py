"""Replace the workers' tokens that are due; the replies to their next heartbeats carry the new ones."""

from skyctl.domain.cluster import Event
from skyctl.domain.events import EventKind
from skyctl.operations.shared import token_issue
from skyctl.operations.shared.leadership import Term
from skyctl.store import events, tokens

MOST_AT_ONCE = 200


def rotate_due(term: Term) -> list[Event]:
    """Replace tokens that are too old, or signed by a secret that is about to go or gone, up to a limit; return the
    events.

    Raises LostLead, DatabaseUnavailable.
    """
    context, max_age = term.context, term.context.token_max_age
    with term.recording() as tx:
        due = tokens.due(tx, max_age or None, context.keys.signing().id, MOST_AT_ONCE)
        for worker in due:
            token_issue.replace_token(context, tx, worker.id)
        rotated = [
            Event(EventKind.TOKEN_ROTATION_DUE, worker.id, worker.name, "monitor", term=term.number) for worker in due
        ]
        return events.append(tx, *rotated)
