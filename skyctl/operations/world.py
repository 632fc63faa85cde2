"""What the operations work with, handed in by whoever wires them up."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from skyctl.model import Alert, EngineState, Limits, SwarmJoin
from skyctl.store.db import Database


class Engine(Protocol):
    """The container engine's cluster."""

    def worker_join(self) -> SwarmJoin | None:
        """What a host needs to join as a worker; None where there is no swarm. Raises EngineUnavailable."""

    def state(self) -> EngineState | None:
        """What the engine says of itself; None where none was set and there is none here. Raises EngineUnavailable."""


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


@dataclass(frozen=True)
class Case:
    """What the doctor looks at. None of it is opened yet, for any of it may be what is wrong.

    `keeps_database`: the embedded one is in the data folder. `kept_secret`: where the signing secret is, unless it was set.
    """

    data_dir: Path
    keeps_database: bool
    kept_secret: Path | None
    database: Callable[[], AbstractContextManager[Database]]
    engine: Callable[[], Engine]
    engine_is_set: bool
    api_url: str
