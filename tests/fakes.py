"""Stand-ins for the parts that reach outside: they keep the same contract as the real ones, without a network."""

from dataclasses import dataclass

from skyctl.model import SwarmJoin


@dataclass(frozen=True)
class FakeEngine:
    """An engine whose swarm is `join`; None manages no swarm."""

    join: SwarmJoin | None

    def worker_join(self) -> SwarmJoin | None:
        return self.join
