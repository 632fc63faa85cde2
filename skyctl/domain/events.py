"""The kinds of events that the log holds: what each means, and what its details say.

Details are stored as JSON, so their keys are in camelCase and their values are JSON's; times are ISO 8601 with an
offset.
docs/reference/events.md is made from this file.
"""

from enum import StrEnum
from typing import NotRequired, Self, TypedDict


class Details(TypedDict):
    """The details of a kind that has none: what happened is in the event's own columns."""


class Deadline(Details):
    """How long what was made can be used."""

    expiresAt: str


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


class MigrationRef(Details):
    """The migration, and the service that it moves. The optional fields are only in events of the monitor; `final`: it
    is not tried again."""

    migrationId: str
    serviceId: str
    serviceName: str
    organizationId: NotRequired[str]
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


class EventKind(StrEnum):
    """The kinds of events. Each has its meaning in one line, and the type of its details."""

    meaning: str
    details: type[Details]

    def __new__(cls, kind: str, meaning: str, details: type[Details] = Details) -> Self:
        """Make a kind."""
        member = str.__new__(cls, kind)
        member._value_, member.meaning, member.details = kind, meaning, details
        return member

    INVITED = "invited", "a worker was made, and its host invited", Deadline
    INVITED_ANEW = "invited_anew", "the host of a worker that is there was invited once more", Deadline
    LINK_MADE = "link_made", "a link was made that gives an install script once", Deadline
    LINK_USED = "link_used", "the link's script was fetched, with a new token", Fetched
    INVITATION_USED = "invitation_used", "a host joined as a worker that was there, by its new invitation", Joined
    REGISTERED = "registered", "a host joined, or its name or address is another one", Joined
    CLONED = "cloned", "a copy of the worker's disk wants to be this worker while its host is alive", Cloned
    NODE_CONFIRMED = "node_confirmed", "the engine shows that the swarm node is the worker's", ClaimedNode
    NODE_REFUTED = "node_refuted", "what the worker says of its swarm node contradicts the engine", ClaimedNode
    NODE_ALLOWED = "node_allowed", "an administrator says that the swarm node is the worker's", ClaimedNode
    STOPPED = "stopped", "the worker's agent was stopped on purpose"
    LABELLED = "labelled", "the region or the pool of the worker was set", Labels
    REMOVED = "removed", "the worker was removed, by skyctl or by the panel"

    TOKEN_ROTATION_ASKED = "token_rotation_asked", "an administrator wants the worker's token replaced"
    TOKEN_ROTATION_DUE = "token_rotation_due", "the worker's token is old enough to be replaced"
    TOKEN_ROTATED = "token_rotated", "the worker used its next token; the one before is no longer good"
    TOKEN_REVOKED = "token_revoked", "an administrator revoked the worker's token"
    SECRET_ROTATED = "secret_rotated", "tokens are signed by a new secret", NewSecret
    ADMIN_TOKENS_ENDED = "admin_tokens_ended", "all tokens of administrators so far are refused", Ended
    CERTIFICATE_MADE = "certificate_made", "the API's certificate was made or renewed", NewCertificate

    AGENT_UPGRADE_OFFERED = "agent_upgrade_offered", "the worker was offered the manager's agent", AgentVersion
    AGENT_UPGRADED = "agent_upgraded", "the worker runs the agent that it was offered", AgentVersion
    AGENT_UPGRADE_FAILED = "agent_upgrade_failed", "the worker went back to the agent before", AgentVersion

    STATUS_CHANGED = "status_changed", "the monitor concluded another status of the worker", StatusChange
    FLAPPING = "flapping", "the worker changes its status too often: it takes nothing new"
    SETTLED = "settled", "the worker no longer flaps", Settled
    CLOCK_SET = (
        "clock_set",
        "the database's clock was set: stored times follow it back, a leap ahead is an outage",
        ClockSet,
    )
    MASS_FAILURE = "mass_failure", "many workers failed at once: automatic moves off them are held", SilentWorkers
    MASS_RECOVERY = "mass_recovery", "none of those workers is silent any more", LiftedMassFailure

    DRAIN_REQUESTED = "drain_requested", "an administrator wants the worker empty"
    DRAIN_CANCELLED = "drain_cancelled", "an administrator no longer wants the worker empty"
    DRAIN_FINISHED = "drain_finished", "the worker is empty, or its deadline has passed", DrainEnd

    SERVICE_DEPLOYED = "service_deployed", "a service was deployed, or deployed again", ServiceRef
    SERVICE_ADOPTED = "service_adopted", "a service of the engine was taken under management", ServiceRef
    SERVICE_REMOVED = "service_removed", "a service was removed", ServiceRef
    SERVICE_DEPLOYING = "service_deploying", "a container that had failed is started again", ServiceRef
    SERVICE_RUNNING = "service_running", "the container of a deployment runs", ServiceRef
    SERVICE_FAILED = (
        "service_failed",
        "the container of a deployment does not run, and the engine gave up",
        ServiceRef,
    )
    SERVICE_STOPPED = (
        "service_stopped",
        "somebody stopped the service, or it was left on a worker at a forced drain's deadline",
        ServiceRef,
    )
    SERVICE_ROLLED_BACK = "service_rolled_back", "the engine went back to the deployment before", ServiceRef
    SERVICE_DOWN = "service_down", "none of a service's containers runs, although one is to", ServiceRef
    SERVICE_UP = "service_up", "a service that was down runs again", ServiceRef
    SERVICE_MOVED_BY_HAND = (
        "service_moved_by_hand",
        "the container runs on a worker that skyctl did not choose",
        ServiceRef,
    )

    MIGRATION_QUEUED = "migration_queued", "a container is to leave its worker", MigrationRef
    MIGRATION_HELD = "migration_held", "it is to leave, once the mass failure is over", MigrationRef
    MIGRATION_AWAITING_APPROVAL = "migration_awaiting_approval", "it is to leave, once somebody approves", MigrationRef
    MIGRATION_APPROVED = "migration_approved", "an administrator approved a migration", MigrationRef
    MIGRATION_REJECTED = (
        "migration_rejected",
        "an administrator rejected a migration: the container stays",
        MigrationRef,
    )
    MIGRATION_RETRIED = "migration_retried", "an administrator wants a failed migration tried again", MigrationRef
    MIGRATION_STARTED = "migration_started", "the engine is asked to move the container", MigrationRef
    MIGRATION_COMPLETED = "migration_completed", "the container runs on its new worker", MigrationRef
    MIGRATION_FAILED = "migration_failed", "an attempt failed, and the container was moved back", MigrationRef
    MIGRATION_CANCELLED = "migration_cancelled", "the migration was cancelled: the container stays", MigrationRef
    GHOST_STOPPED = "ghost_stopped", "a lost worker is back, and its old container has stopped", MigrationRef
    APPROVAL_REQUIRED = "approval_required", "containers of a worker wait for approval", Approval
    MIGRATIONS_FINISHED = "migrations_finished", "nothing is to leave the worker any more", MigrationSummary
    MIGRATIONS_PAUSED = "migrations_paused", "an administrator wants no migration to begin"
    MIGRATIONS_RESUMED = "migrations_resumed", "migrations may begin again", Resumed
    POLICY_SET = "policy_set", "what an organization wants when a worker fails was set", Policy

    @classmethod
    def read(cls, kind: str) -> "EventKind":
        """Return the kind that a stored event has: of another version's, one that is no member and has its name
        alone."""
        known = cls.__members__.get(kind.upper())
        if known is not None:
            return known
        foreign = str.__new__(cls, kind)
        foreign._name_ = foreign._value_ = kind
        foreign.meaning, foreign.details = "an event of another version of skyctl", Details
        return foreign
