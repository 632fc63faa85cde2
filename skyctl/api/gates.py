"""The gates of a process: which callers have which turns, so that nobody's load is another's wait."""

from skyctl.api.limits import Connections, Pace
from skyctl.api.turns import Kept, Turns
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context

PROBING, STRANGERS, REGISTERING, REPLYING, WORKERS, ADMINISTRATORS = 1, 2, 1, 1, 2, 3
OURS = 3  # the sign of life, the certificate's renewal, and one more
CONNECTIONS = PROBING + STRANGERS + REGISTERING + REPLYING + WORKERS + ADMINISTRATORS + OURS
"""Connections to the database: one for each thread, so that no thread waits for another's."""
PER_SECOND, AT_ONCE = 100.0, 200
REGISTRATIONS_WAITING, REGISTRATIONS_AT_ONCE = 1000, 100
REPLIES_WAITING, REPLIES_AT_ONCE = 1000, 100


class Gates:
    """The turns of each kind of callers, for threads and for answers.

    `probes`: /readyz and /healthz. `strangers`: whoever shows no token that we signed. `workers` and
    `administrators` take turns by their ids, however many tokens they have; strangers by their address.
    """

    def __init__(self) -> None:
        self.probing = Turns(PROBING, 1)
        self.strangers = Turns(STRANGERS, 32)
        self.workers = Turns(WORKERS, 256)
        self.administrators = Turns(ADMINISTRATORS, 128)
        self.answers_to_probes = Pace(PER_SECOND, AT_ONCE)
        self.answers_to_strangers = Pace(PER_SECOND, AT_ONCE)
        self.connections = Connections()
        self._learnt: Kept[object] = Kept()

    async def holder(self, context: Context, token: str, *, is_admin: bool) -> str:
        """Return whom a token was signed for, as `authentication.holder_of` does. Until the keys are known, nobody is:
        they are read once for all who wait."""
        if context.keys.at_hand() is None:
            await self._learnt.get(lambda: self.probing.run("", context.keys.signing))
        return authentication.holder_of(context, token, is_admin=is_admin)
