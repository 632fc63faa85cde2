"""States and choices by name: those of workers, services, deployments and migrations, stored and shown as they stand
here.

Apart from the values that have them, since the command line offers them as options and loads nothing else for that.
"""

from enum import StrEnum


class WorkerStatus(StrEnum):
    """The monitor's conclusion about a worker; the names are stored and shown as they stand here."""

    PENDING = "pending"
    ACTIVE = "active"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    OFFLINE = "offline"


class WorkerOrder(StrEnum):
    """By what workers are listed: texts from the first, figures and times from the highest."""

    NAME = "name"
    STATUS = "status"
    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    HEARTBEAT = "heartbeat"


class ServiceStatus(StrEnum):
    """The state of a service. `down` is shown and not stored: it is to run and ran, and none of its containers does."""

    PENDING = "pending"
    BUILDING = "building"
    DEPLOYING = "deploying"
    RUNNING = "running"
    DOWN = "down"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETED = "deleted"


class ServiceOrder(StrEnum):
    """By what services are listed: texts from the first, times from the latest."""

    ORGANIZATION = "org"
    NAME = "name"
    STATUS = "status"
    WORKER = "worker"
    CHANGED = "changed"


class DeploymentStatus(StrEnum):
    """The state of one deployment of a service."""

    PENDING = "pending"
    BUILDING = "building"
    DEPLOYING = "deploying"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class MigrationPolicy(StrEnum):
    """An organization's wish for when a worker fails: its containers move, move once approved, or stay."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"
    NONE = "none"


class MigrationState(StrEnum):
    """The progress of a migration. Final are completed and cancelled, and failed once it is not tried again."""

    AWAITING_APPROVAL = "awaiting_approval"
    HELD = "held"
    QUEUED = "queued"
    STARTING = "starting"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class MigrationOrder(StrEnum):
    """By what migrations are listed: texts from the first, times from the latest; unfinished ones are the latest."""

    FINISHED = "finished"
    CREATED = "created"
    SERVICE = "service"
    STATE = "state"


class MigrationCause(StrEnum):
    """The reason for a container to leave its worker."""

    WORKER_FAILED = "worker_failed"
    DRAIN = "drain"


class ServiceMode(StrEnum):
    """How many containers the engine runs of a service, in Docker's words: so many, one on each node, or so many, or
    one on each node, until they have ended."""

    REPLICATED = "replicated"
    GLOBAL = "global"
    REPLICATED_JOB = "replicated-job"
    GLOBAL_JOB = "global-job"


class EndpointMode(StrEnum):
    """The engine's way to resolve a service's name: a virtual IP, or the containers' own by DNS round robin."""

    VIP = "vip"
    DNSRR = "dnsrr"


class EvenIf(StrEnum):
    """An obstacle to taking a service under management that an administrator may overrule: `bound`, no other node would
    take it; `local-data`, it keeps data on its node."""

    BOUND = "bound"
    LOCAL_DATA = "local-data"


class Upgrade(StrEnum):
    """The result of the request that a worker run the manager's agent."""

    OFFERED = "offered"
    UP_TO_DATE = "up-to-date"
    IMPOSSIBLE = "impossible"
