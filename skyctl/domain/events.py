"""The kinds of events that the log holds: what each means, and what its details say.

docs/reference/events.md is made from this file.
"""

from enum import StrEnum
from typing import Self

from skyctl.domain.event_details import (
    AgentVersion,
    ApiTokenRef,
    Approval,
    ClaimedNode,
    ClockSet,
    Cloned,
    Deadline,
    Details,
    DrainEnd,
    Ended,
    Fetched,
    Joined,
    Labels,
    LiftedMassFailure,
    MigrationRef,
    MigrationSummary,
    NewApiToken,
    NewCertificate,
    NewSecret,
    Policy,
    Resumed,
    ServiceRef,
    Settled,
    Silenced,
    SilentWorkers,
    StatusChange,
    SwarmServiceRef,
)


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
    API_TOKEN_MADE = "api_token_made", "an administrator made a token of the API", NewApiToken
    API_TOKEN_REVOKED = "api_token_revoked", "an administrator revoked a token of the API", ApiTokenRef
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

    ENGINE_LOST = "engine_lost", "the monitor has not been able to ask the container engine for two minutes"
    ENGINE_BACK = "engine_back", "the container engine, which administrators heard was lost, answers again"

    DRAIN_REQUESTED = "drain_requested", "an administrator wants the worker empty"
    DRAIN_CANCELLED = "drain_cancelled", "an administrator no longer wants the worker empty"
    DRAIN_FINISHED = "drain_finished", "the worker is empty, or its deadline has passed", DrainEnd

    CORDONED = "cordoned", "an administrator wants the worker to take nothing new"
    UNCORDONED = "uncordoned", "the worker may take something new again"
    ALERTS_SILENCED = "alerts_silenced", "alerts of the worker's health are held back from the channels", Silenced
    ALERTS_UNSILENCED = "alerts_unsilenced", "an administrator ended that before its time"

    SERVICE_DEPLOYED = "service_deployed", "a service was deployed, or deployed again", ServiceRef
    SERVICE_ADOPTED = "service_adopted", "a service of the engine was taken under management", ServiceRef
    SERVICE_RELEASED = "service_released", "an administrator gave a service back to the swarm as it was", ServiceRef
    SERVICE_REMOVED = "service_removed", "a service was removed", ServiceRef
    SERVICE_ORDERED = "service_ordered", "an administrator had it scaled, restarted or rolled back", SwarmServiceRef
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
    SERVICE_REDIRECTED = (
        "service_redirected",
        "the engine has no place for a deployment on its worker: it goes to another one",
        ServiceRef,
    )
    SERVICE_KEEPS_ENDING = (
        "service_keeps_ending",
        "a service's container ends again and again, and is started again each time",
        ServiceRef,
    )
    SERVICE_KEEPS_RUNNING = (
        "service_keeps_running",
        "a service's container that kept ending has run for some minutes",
        ServiceRef,
    )
    SERVICE_PINNED_ANEW = (
        "service_pinned_anew",
        "it was pinned where nothing can run, and is pinned to its worker's node again",
        ServiceRef,
    )
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
    MIGRATION_STARTED = "migration_started", "the engine moves the container, as asked or by itself", MigrationRef
    MIGRATION_COMPLETED = "migration_completed", "the container runs on its new worker", MigrationRef
    MIGRATION_FAILED = "migration_failed", "an attempt failed: it is where it was, or the swarm goes on", MigrationRef
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
