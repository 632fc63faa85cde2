"""What the operations work with, handed in by whoever wires them up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from skyctl.model import Alert, Limits, SwarmJoin
from skyctl.store.db import Database


class Engine(Protocol):
    """The container engine's cluster."""

    def worker_join(self) -> SwarmJoin | None:
        """What a host needs to join as a worker; None where there is no swarm. Raises EngineUnavailable."""


class Notifier(Protocol):
    """The channels to people outside of the database."""

    def send(self, channel: str, alert: Alert) -> None:
        """Send an alert by one of the channels, within a limited time. Raises ChannelFailed."""


@dataclass(frozen=True)
class World:
    """The database, the engine, the channels, the secret and the limits.

    `engine` and `notifier` are called when they are first needed: their libraries are slow to load.
    """

    db: Database
    engine: Callable[[], Engine]
    notifier: Callable[[], Notifier]
    channels: Sequence[str]
    secret: str = field(repr=False)
    limits: Limits
    api_url: str
