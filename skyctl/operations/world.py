"""What the operations work with, handed in by whoever wires them up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from skyctl.model import Limits, SwarmJoin
from skyctl.store.db import Database


class Engine(Protocol):
    """The container engine's cluster."""

    def worker_join(self) -> SwarmJoin | None:
        """What a host needs to join as a worker; None where there is no swarm. Raises EngineUnavailable."""


@dataclass(frozen=True)
class World:
    """The database, the engine, the secret and the limits. `engine` is called when it is first needed: its SDK is slow to load."""

    db: Database
    engine: Callable[[], Engine]
    secret: str = field(repr=False)
    limits: Limits
    heartbeat_interval: timedelta
    api_url: str
