"""Replace the workers' tokens that are due; the replies to their next heartbeats carry the new ones."""

import secrets
from math import ceil

from skyctl.domain.cluster import Event
from skyctl.domain.events import EventKind
from skyctl.operations.shared import token_issue
from skyctl.operations.shared.leadership import Term
from skyctl.store import events, health, tokens

MOST_AT_ONCE = 200
PART_BLOCKS = 16_384  # some 50,000 workers: of a million tokens, all are looked at in twenty parts


class Round:
    """Where a monitor is in its round through all tokens: when one was made is in no index.

    It begins anywhere, so that those who make one pass each, as from cron, come to all of them as well.
    """

    def __init__(self, part_blocks: int = PART_BLOCKS) -> None:
        self._blocks, self._place = part_blocks, secrets.randbelow(2**31)

    def pages(self, extent: int) -> range | None:
        """The part of a table of so many pages whose turn it is; None where it is all of them."""
        if extent <= self._blocks:
            return None
        start = self._place % ceil(extent / self._blocks) * self._blocks
        return range(start, start + self._blocks)

    def go_on(self) -> None:
        """Go on to the next part: nothing is due in this one any more."""
        self._place += 1


def rotate_due(term: Term, tokens_round: Round | None = None) -> list[Event]:
    """Replace tokens that are too old, or signed by a secret that is about to go or gone, up to a limit; return the
    events. Of many workers, of a part at a time.

    Raises LostLead, DatabaseUnavailable.
    """
    context, max_age = term.context, term.context.token_max_age
    tokens_round = tokens_round or Round()
    with term.recording() as tx:
        part = tokens_round.pages(health.extent(tx)[1])
        due = tokens.due(tx, max_age or None, context.keys.signing().id, MOST_AT_ONCE, part)
        for worker in due:
            token_issue.replace_token(context, tx, worker.id)
        rotated = [
            Event(EventKind.TOKEN_ROTATION_DUE, worker.id, worker.name, "monitor", term=term.number) for worker in due
        ]
        written = events.append(tx, *rotated)
    if len(due) < MOST_AT_ONCE:
        tokens_round.go_on()
    return written
