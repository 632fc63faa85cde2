"""Stand-ins for the parts that reach outside: they keep the same contract as the real ones, without a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.operations.shared.context import Send
from tests.support.fake_engine import FakeEngine

__all__ = ["FakeEngine", "FakeNotifier"]


@dataclass
class FakeNotifier:
    """One channel that keeps what it is sent; while anything is in `fails`, it fails."""

    channel: str = "fake:1"
    arrived: list[tuple[str, str]] = field(default_factory=list)
    fails: list[bool] = field(default_factory=list)

    @contextmanager
    def opened(self, channel: str) -> Iterator[Send]:
        def send(alert: Alert) -> None:
            if channel != self.channel:
                raise ChannelFailed(f"the channel {channel} is not in the settings")
            if self.fails:
                raise ChannelFailed(f"the channel {channel} did not take the alert")
            self.arrived.append((alert.title, alert.message))

        yield send
