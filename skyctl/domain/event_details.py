"""What the details of an event say, by its kind (`events`).

They are stored as JSON, so their keys are in camelCase and their values are JSON's; times are ISO 8601 with an offset.
"""

from typing import NotRequired, TypedDict


class Details(TypedDict):
    """The details of a kind that has none: what happened is in the event's own columns."""


class Deadline(Details):
    """How long what was made can be used."""

    expiresAt: str


class Silenced(Details):
    """Until when."""

    until: str


class Address(TypedDict):
    """Where a host is."""

    hostname: str
    ipAddress: str


class Joined(Details):
    """The host that registered."""

    hostname: str
    ipAddress: str


class ClaimedNode(Details):
    """The swarm node that a worker says it is."""

    swarmNodeId: str


class Fetched(Details):
    """Whoever fetched an install script, where that is known."""

    ipAddress: NotRequired[str]


class Cloned(Details):
    """The host that the worker is, and the copy of its disk."""

    holder: Address
    clone: Address


class NewSecret(Details):
    """Until when tokens of the secret before are accepted, and the new secret's id."""

    acceptedUntil: str
    keyId: str


class Ended(Details):
    """Which tokens of administrators are refused."""

    issuedBefore: str


class ApiTokenRef(Details):
    """A token of the API."""

    tokenId: str
    tokenName: str


class NewApiToken(ApiTokenRef):
    """A token of the API, what may be done by it, and until when; null for ever."""

    role: str
    expiresAt: str | None


class AgentVersion(Details):
    """The version of an agent as it calls itself, and the SHA-256 of the archive that was offered."""

    version: str | None
    sha256: str | None


class Labels(Details):
    """The labels that were set; empty where one was taken away."""

    region: NotRequired[str]
    pool: NotRequired[str]


class NewCertificate(Details):
    """The server's new certificate."""

    names: list[str]
    endsAt: str
    fingerprint: str


class Sample(TypedDict):
    """Percents of use, 0 to 100."""

    cpuPercent: float
    memoryPercent: float
    diskPercent: float


class StatusChange(Details):
    """What decided a status. `onPurpose`: its agent was stopped, or had been. `engineFailed`: what ran there counts as
    failed, since its engine does."""

    lastHeartbeatAt: str | None
    load: NotRequired[Sample]
    onPurpose: NotRequired[bool]
    engineFailed: NotRequired[bool]
    massFailureId: NotRequired[int]


class Settled(Details):
    """What a worker settled as. `engineFailed`: what ran there counts as failed, since its engine does."""

    engineFailed: NotRequired[bool]


class ClockSet(Details):
    """By how many seconds the clock was set: less than zero where back."""

    seconds: float


class SilentWorkers(Details):
    """How many workers failed at once, of how many that could take containers, in a region or everywhere."""

    massFailureId: int
    region: str | None
    silent: int
    schedulable: int
    workers: list[str]


class LiftedMassFailure(Details):
    """The mass failure that is over."""

    massFailureId: int
    region: str | None
    silent: int


class Resumed(Details):
    """The mass failure that was lifted by hand; nothing where a pause has ended."""

    massFailureId: NotRequired[int]
    region: NotRequired[str | None]
    silent: NotRequired[int]


class DrainEnd(Details):
    """What is left on a drained worker: how many containers, the first services by name, and of what others run there
    the first by the engine's name with the number of their containers, how many these are, and why nobody can say what
    else is there."""

    left: int
    services: list[str]
    overdue: bool
    others: NotRequired[list[str]]
    othersCount: NotRequired[int]
    unknown: NotRequired[str]


class ServiceRef(Details):
    """The service, and its deployment where it is about one. `organizationId` where the monitor found what became of
    it."""

    serviceId: str
    serviceName: str
    deploymentId: NotRequired[str]
    organizationId: NotRequired[str]


class SwarmServiceRef(Details):
    """The service by the swarm's id and name; `serviceId` where it is under management."""

    swarmServiceId: str
    serviceName: str
    serviceId: NotRequired[str]


class MigrationRef(Details):
    """The migration, and the service that it moves: one that others deployed has no id of ours and no organization. The
    optional fields are only in events of the monitor; `final`: it is not tried again."""

    migrationId: str
    serviceId: str | None
    serviceName: str
    swarmServiceId: NotRequired[str | None]
    organizationId: NotRequired[str | None]
    cause: NotRequired[str]
    attempt: NotRequired[int]
    targetWorkerId: NotRequired[str | None]
    targetWorkerName: NotRequired[str | None]
    final: NotRequired[bool]


class Approval(Details):
    """How many containers wait, and the first services by name."""

    count: int
    services: list[str]


class MigrationSummary(Details):
    """Why containers left, and by the state that their migrations ended in how many, and the first services by name."""

    cause: str
    counts: dict[str, int]
    services: dict[str, list[str]]


class Policy(Details):
    """An organization, and its policy from now on."""

    organizationId: str
    policy: str
