"""The parts that the operations work with, handed in by whoever wires them up."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from skyctl.domain.cluster import Alert, AlertPolicy, HealthPolicy
from skyctl.domain.engine import (
    Document,
    EngineSpec,
    EngineState,
    NodeTask,
    Observation,
    ServiceDocument,
    ServiceVersion,
    SwarmJoin,
)
from skyctl.domain.logs import LogLine, LogOptions
from skyctl.domain.retention import RetentionPolicy
from skyctl.domain.workloads import MigrationSettings
from skyctl.host.certificates import Certificates
from skyctl.host.keyring import Keyring
from skyctl.host.release_key import ReleaseKey
from skyctl.store import events
from skyctl.store.db import Database, Transaction


class Engine(Protocol):
    """The container engine's cluster.

    Every call has a time limit, and raises EngineUnavailable where the engine does not answer, EngineRefused with the
    engine's own words where it does not do what it is asked.
    """

    def worker_join(self) -> SwarmJoin | None:
        """Return what a host needs to join as a worker; None where there is no swarm. Raises EngineUnavailable."""

    def state(self) -> EngineState | None:
        """Return what the engine says of itself; None where none was configured and there is none on this host.

        Raises EngineUnavailable.
        """

    def observe(self, service_ids: Collection[str] | None = None) -> Observation:
        """Return the nodes, and these services (None: all) with their tasks, without those that the engine does not
        know."""

    def tasks_on(self, node_ids: Collection[str]) -> list[NodeTask]:
        """Return what the engine has on these nodes, also of services that were removed while their containers stop;
        nothing of nodes that it does not know."""

    def find(self, name: str) -> ServiceVersion | None:
        """Return the id, the version and the labels of the service of this name; None where there is none."""

    def digest(self, image: str) -> str:
        """Return the digest that an image has in its registry now (`sha256:...`)."""

    def deploy(self, spec: EngineSpec, version: int | None) -> str:
        """Change the service of the spec's name, which is of this version; create it, and its network where that is
        missing, where `version` is None. Return the service's id.

        Repeating it does no harm. Raises EngineConflict where the service is of another version, is gone, or exists
        although it is to be created.
        """

    def move(
        self, service_id: str, version: int, node_id: str, labels: Mapping[str, str], order: str = "start-first"
    ) -> None:
        """Pin a service to a node and set these labels; the others stay. Where it runs elsewhere, the new container
        runs, and is healthy, before the old one is stopped (by the order `stop-first`, after it has); where it runs
        there already, nothing is started.

        Returns at once, and the engine never moves it back: see `observe`. An update that is `paused` has given up
        waiting for the new container but goes on trying it, and would leave both running: move it back then. Raises
        EngineConflict where the service is no longer of that version, or is gone.
        """

    def read(self, service_id: str) -> ServiceDocument | None:
        """Return the whole specification of a service; None where there is no such service."""

    def write(self, service_id: str, version: int, spec: Document) -> None:
        """Replace the whole specification of a service.

        Returns at once: see `observe`. Raises EngineConflict where the service is no longer of that version, or is
        gone.
        """

    def logs(self, service_id: str, options: LogOptions) -> Iterator[LogLine]:
        """Return the lines that a service's containers wrote, in the order in which the engine has them; where they are
        followed, without end. Raises EngineRefused where there is no such service."""

    def stop(self, service_id: str) -> None:
        """Stop a service's container; the service stays. Does nothing where there is no such service."""

    def remove(self, service_id: str) -> None:
        """Remove a service. Does nothing where there is no such service."""

    def set_availability(self, node_id: str, availability: str) -> None:
        """Make a node take new containers (`active`), none (`pause`), or have what it has stopped, too (`drain`).
        Raises EngineRefused where there is no such node."""

    def remove_node(self, node_id: str) -> None:
        """Remove a node from the swarm, whether it is down or not. Does nothing where there is no such node."""


Send = Callable[[Alert], None]
"""Sends an alert within a limited time. Raises ChannelFailed; the next may be sent all the same."""


class Notifier(Protocol):
    """The channels to people outside of the database."""

    def opened(self, channel: str) -> AbstractContextManager[Send]:
        """Open one of the channels for any number of alerts, one after the other, by one thread."""


@dataclass(frozen=True)
class Context:
    """The database, the engine, the channels, the secrets that sign tokens, and the policies that were set.

    `engine` and `notifier` are functions since their libraries are slow to load: call them when one is needed.
    `authority` returns the PEM certificate that hosts need in order to trust the server at an address of the API; empty
    where the certificates that hosts have suffice. `certificates`, where there are files of ours, signs for it. Tokens
    older than `token_max_age` are replaced (zero: never). `release_key` signs the agent's releases; `serve` has none.
    `metrics_token` lets Prometheus read the metrics of the API. `doctor_inputs` returns what the doctor examines.
    """

    db: Database
    engine: Callable[[], Engine]
    notifier: Callable[[], Notifier]
    channels: Sequence[str]
    keys: Keyring
    api_url: str
    authority: Callable[[str], str]
    certificates: Certificates | None = None
    health: HealthPolicy = HealthPolicy()
    alerting: AlertPolicy = AlertPolicy()
    migrations: MigrationSettings = MigrationSettings()
    retention: RetentionPolicy = RetentionPolicy()
    token_max_age: timedelta = timedelta(days=30)
    release_key: ReleaseKey | None = None
    metrics_token: str | None = field(default=None, repr=False)
    doctor_inputs: "Callable[[], DoctorInputs] | None" = None

    @contextmanager
    def recording(self) -> Iterator[Transaction]:
        """Begin a transaction that may append events: it takes the event log's lock before it locks any row."""
        with self.db.transaction() as tx:
            events.lock(tx)
            yield tx


@dataclass(frozen=True)
class DoctorInputs:
    """The parts that the doctor checks. None of them is opened yet, for any of it may be what is wrong.

    `keeps_database`: the embedded database is in the data folder. `kept_secret`: the file of the signing secret, unless
    the secret was configured. `weak_secrets`: the variables of those that were and can be guessed, and why.
    `docker_verified`: the engine is asked by TLS, and proves who it is. `settings_concerns`: what is to be said against
    the files of settings, each with its remedy.
    """

    data_dir: Path
    keeps_database: bool
    kept_secret: Path | None
    weak_secrets: Mapping[str, str]
    database: Callable[[], AbstractContextManager[Database]]
    engine: Callable[[], Engine]
    docker_host: str | None
    docker_verified: bool
    settings_concerns: Callable[[], Sequence[tuple[str, str]]]
    api_url: str
    certificates: Certificates
    retention: RetentionPolicy = RetentionPolicy()
