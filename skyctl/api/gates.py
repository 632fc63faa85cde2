"""The gates of a process: which callers have which turns, so that nobody's load is another's wait."""

import threading
from collections import OrderedDict

from skyctl.api.limits import Connections, Pace
from skyctl.api.turns import Kept, Turns
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context

PROBING, STRANGERS, REGISTERING, REPLYING, WORKERS, ADMINISTRATORS, ASKING = 1, 2, 1, 1, 2, 3, 3
OURS = 3  # the sign of life, the certificate's renewal, and one more
CONNECTIONS = PROBING + STRANGERS + REGISTERING + REPLYING + WORKERS + ADMINISTRATORS + ASKING + OURS
"""Connections to the database: one for each thread, so that no thread waits for another's."""
PER_SECOND, AT_ONCE = 100.0, 200
MOST_GOOD_TOKENS = 1000
REGISTRATIONS_WAITING, REGISTRATIONS_AT_ONCE = 1000, 100
REPLIES_WAITING, REPLIES_AT_ONCE = 1000, 100


class Gates:
    """The turns of each kind of callers, for threads and for answers.

    `probes`: /readyz and /healthz. `strangers`: whoever shows no token that we signed. `workers` and
    `administrators` take turns by their ids, however many tokens they have; strangers by their address. `asking`:
    administrators for whom another process works meanwhile.
    """

    def __init__(self) -> None:
        self.probing = Turns(PROBING, 1)
        self.strangers = Turns(STRANGERS, 32)
        self.workers = Turns(WORKERS, 256)
        self.administrators = Turns(ADMINISTRATORS, 128)
        self.asking = Turns(ASKING, 32)
        self.answers_to_probes = Pace(PER_SECOND, AT_ONCE)
        self.answers_to_strangers = Pace(PER_SECOND, AT_ONCE)
        self.connections = Connections()
        self._learnt: Kept[object] = Kept()
        self._good_tokens: OrderedDict[str, None] = OrderedDict()
        self._noting = threading.Lock()

    async def holder(self, context: Context, token: str, who: str) -> str:
        """Return whom a token was signed for, as `authentication.holder_of` does. Until the keys are known, nobody is:
        they are read once for all who wait."""
        if context.keys.at_hand() is None:
            await self._learnt.get(lambda: self.probing.run("", context.keys.signing))
        return authentication.holder_of(context, token, who)

    def note_token(self, fingerprint: str, *, good: bool) -> None:
        """Note whether a token of the API was accepted just now."""
        with self._noting:
            self._good_tokens.pop(fingerprint, None)
            if good:
                self._good_tokens[fingerprint] = None
                while len(self._good_tokens) > MOST_GOOD_TOKENS:
                    self._good_tokens.popitem(last=False)

    def was_good(self, fingerprint: str) -> bool:
        """Tell whether a token of the API was accepted when it was last shown to this process: whoever shows another
        one waits among strangers until the database has been asked."""
        return fingerprint in self._good_tokens
