"""Stand-ins for the parts that reach outside: they keep the same contract as the real ones, without a network."""

from dataclasses import dataclass, field

from skyctl.errors import ChannelFailed
from skyctl.model import Alert, EngineState, SwarmJoin


@dataclass(frozen=True)
class FakeEngine:
    """An engine whose swarm is `join`; None manages no swarm."""

    join: SwarmJoin | None

    def worker_join(self) -> SwarmJoin | None:
        return self.join

    def state(self) -> EngineState:
        return EngineState("29.0.0", "active" if self.join else "inactive", manages=self.join is not None)


@dataclass
class FakeNotifier:
    """Channels that keep what they are sent; those in `down` fail."""

    sent: list[tuple[str, Alert]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)

    def send(self, channel: str, alert: Alert) -> None:
        if channel in self.down:
            raise ChannelFailed(f"the channel {channel} did not take the alert")
        self.sent.append((channel, alert))
