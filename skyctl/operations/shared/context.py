"""What the operations work with, handed in by whoever wires them up."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from skyctl.domain.cluster import Alert, AlertPolicy, EngineState, HealthPolicy, SwarmJoin
from skyctl.domain.engine import EngineSpec, Observation
from skyctl.domain.workloads import MigrationSettings
from skyctl.host.certificates import Certificates
from skyctl.host.keyring import Keyring
from skyctl.store.db import Database


class Engine(Protocol):
    """The container engine's cluster. Every call has a time limit, and raises EngineUnavailable where the engine does
    not answer, EngineRefused with the engine's own words where it does not do what it is asked."""

    def worker_join(self) -> SwarmJoin | None:
        """What a host needs to join as a worker; None where there is no swarm. Raises EngineUnavailable."""

    def state(self) -> EngineState | None:
        """What the engine says of itself; None where none was set and there is none here. Raises EngineUnavailable."""

    def observe(self, service_ids: Collection[str] | None = None) -> Observation:
        """The nodes, and these services (None: all) with their tasks; those that the engine does not know are
        missing."""

    def deploy(self, spec: EngineSpec) -> str:
        """Create the service, and its network where that is missing; or let the one of that name become so. Its id.

        To be repeated without harm. Raises EngineConflict where somebody else changes it at the same moment.
        """

    def move(self, service_id: str, version: int, node_id: str, labels: Mapping[str, str]) -> None:
        """Pin a service to a node and set these labels, the others stay: where it runs elsewhere, the new container
        runs, and is healthy, before the old one is stopped; where it runs there already, nothing is started.

        Returns at once, and the engine never moves it back: see `observe`. An update that is `paused` has given up
        waiting for the new container but goes on trying it, and would leave both running: move it back then. Raises
        EngineConflict where the service is no longer of that version, or is gone.
        """

    def stop(self, service_id: str) -> None:
        """Let a service's container be stopped and the service stay. Nothing where there is no such service."""

    def remove(self, service_id: str) -> None:
        """Remove a service. Nothing where there is no such service."""

    def set_availability(self, node_id: str, availability: str) -> None:
        """Let a node take new containers (`active`), or none (`pause`). Raises EngineRefused where there is no such
        node."""

    def remove_node(self, node_id: str) -> None:
        """Remove a node from the swarm, whether it is down or not. Nothing where there is no such node."""


class Notifier(Protocol):
    """The channels to people outside of the database."""

    def send(self, channel: str, alert: Alert) -> None:
        """Send an alert by one of the channels, within a limited time. Raises ChannelFailed."""


@dataclass(frozen=True)
class Context:
    """The database, the engine, the channels, the secrets that sign tokens, and the policies that were set; tokens older than
    `token_max_age` are replaced (zero: never).

    `engine` and `notifier` are called when they are first needed: their libraries are slow to load. `authority`: the
    PEM certificate that hosts need in order to trust who answers at an address of the API; empty where their own do.
    """

    db: Database
    engine: Callable[[], Engine]
    notifier: Callable[[], Notifier]
    channels: Sequence[str]
    keys: Keyring
    api_url: str
    authority: Callable[[str], str]
    health: HealthPolicy = HealthPolicy()
    alerting: AlertPolicy = AlertPolicy()
    migrations: MigrationSettings = MigrationSettings()
    token_max_age: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class DoctorInputs:
    """What the doctor looks at. None of it is opened yet, for any of it may be what is wrong.

    `keeps_database`: the embedded one is in the data folder. `kept_secret`: where the signing secret is, unless it was
    set.
    """

    data_dir: Path
    keeps_database: bool
    kept_secret: Path | None
    database: Callable[[], AbstractContextManager[Database]]
    engine: Callable[[], Engine]
    engine_is_set: bool
    api_url: str
    certificates: Certificates
