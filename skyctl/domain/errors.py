"""One tree of errors: each carries the exit code of the command line, the HTTP status and the code of the API.

The message says what happened; `hint` says what to do about it. Neither ever holds a secret.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Self


class ExitCode(IntEnum):
    """The end of a command, as its process reports it. One that a signal ended says 128 and the signal's number."""

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> Self:
        """Make a member: a number, and what it means."""
        member = int.__new__(cls, number)
        member._value_, member.meaning = number, meaning
        return member

    DONE = 0, "done"
    UNEXPECTED = 1, "unexpected"
    USAGE = 2, "usage"
    NOT_FOUND = 3, "not found"
    REFUSED = 4, "refused by a safety rule"
    UNREACHABLE = 5, "database, manager or engine unreachable"
    TIMED_OUT = 6, "timed out while waiting"
    PARTLY_DONE = 7, "partly done"


HINT = "Skyctl-Hint"
"""The header of an error's answer that says its hint, percent-encoded, by itself: its message ends with it."""


class SkyctlError(Exception):
    """The base of every error that an operation raises; the entry points turn it into one line, or into an HTTP
    answer."""

    exit_code: ExitCode = ExitCode.UNEXPECTED
    http_status = 500
    code = "INTERNAL_ERROR"
    retry_after_seconds: int | None = None

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def document(self) -> dict[str, object]:
        """The error as JSON, for another process of ours to raise again: see `AnsweredError`."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "status": self.http_status,
            "exitCode": int(self.exit_code),
            "retryAfterSeconds": self.retry_after_seconds,
        }


class AnsweredError(SkyctlError):
    """What another process of ours answered, with that error's own status and codes."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the error of a document that `SkyctlError.document` made."""
        error = cls(document["message"], document["hint"])
        error.code, error.http_status = document["code"], document["status"]
        error.exit_code, error.retry_after_seconds = ExitCode(document["exitCode"]), document["retryAfterSeconds"]
        return error


class ValidationError(SkyctlError):
    """A value that was handed in is not acceptable; the message names the field, the value and the bounds."""

    exit_code = ExitCode.USAGE
    http_status = 400
    code = "VALIDATION_ERROR"


class InvalidValue(ValidationError):
    """A field's value is not acceptable. `field` is as it was typed: a key of JSON or YAML, or an option; `part`: what
    within it; `shown`: the value as it may be seen."""

    def __init__(self, field: str, shown: str, accepted: str, part: str = "") -> None:
        super().__init__(f"{field}{part}: {shown} is not accepted", f"{field}{part} is {accepted}")
        self.field, self.shown, self.accepted, self.part = field, shown, accepted, part

    def named(self, names: Mapping[str, str]) -> "InvalidValue":
        """Return the same error with the name by which the field was typed, where that is another one."""
        return InvalidValue(names.get(self.field, self.field), self.shown, self.accepted, self.part)


class BodyTooLarge(ValidationError):
    """The request's body is over the limit."""

    http_status = 413
    code = "BODY_TOO_LARGE"


class Unauthorized(SkyctlError):
    """The token is missing, not ours, expired or replaced."""

    exit_code = ExitCode.REFUSED
    http_status = 401
    code = "UNAUTHORIZED"


class Forbidden(SkyctlError):
    """The token is good, but not for this."""

    exit_code = ExitCode.REFUSED
    http_status = 403
    code = "FORBIDDEN"


class TokenRevoked(Forbidden):
    """An administrator revoked the worker's token."""

    code = "TOKEN_REVOKED"


class InvitationExpired(Unauthorized):
    """The invitation was not used in time."""

    code = "INVITATION_EXPIRED"


class WorkerNotFound(SkyctlError):
    """No worker has this id, prefix or name."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "WORKER_NOT_FOUND"


class NameNotFound(SkyctlError):
    """Nothing can have this name or id."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "NAME_NOT_FOUND"


class AgentNotFound(SkyctlError):
    """The manager has no agent of this checksum, or none any more."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "AGENT_NOT_FOUND"


class Refused(SkyctlError):
    """A safety rule says no; the message names the rule."""

    exit_code = ExitCode.REFUSED
    http_status = 409
    code = "CONFLICT"


class LinkGone(Refused):
    """The link to an install script is used up, expired, or none; `script_code` is the script's own number for that."""

    http_status = 410
    code = "LINK_GONE"

    def __init__(self, message: str, hint: str, script_code: int) -> None:
        super().__init__(message, hint)
        self.script_code = script_code


class WorkerHasContainers(Refused):
    """Containers still run on the worker that is to be removed."""

    code = "WORKER_HAS_CONTAINERS"


class TokenInUse(Refused):
    """The token belongs to another machine."""

    code = "TOKEN_IN_USE"


class WorkerCloned(Refused):
    """Another host with the same machine id is alive: this one is a copy of its disk."""

    code = "WORKER_CLONED"


class RebootUnconfirmed(Refused):
    """The worker's machine comes from elsewhere while it was just heard: it is let in once that is known to be a
    reboot."""

    code = "REBOOT_UNCONFIRMED"

    def __init__(self, message: str, hint: str, retry_after_seconds: int) -> None:
        super().__init__(message, hint)
        self.retry_after_seconds = retry_after_seconds


class AlreadyRunning(Refused):
    """The process is there already and may be there only once."""


class Superseded(Refused):
    """The deployment is not the service's current one any more: it was deployed again, or removed, meanwhile."""


class LostLead(Refused):
    """The monitor's term has ended: another one leads, or may."""


class ChannelFailed(SkyctlError):
    """A channel did not take an alert. The message never holds the channel's URL, which is a secret."""

    exit_code = ExitCode.UNREACHABLE


class Undownloadable(SkyctlError):
    """A download that is needed and failed."""

    exit_code = ExitCode.UNREACHABLE


class DatabaseUnavailable(SkyctlError):
    """The database does not answer: wrong address, refused, restarting, or too slow."""

    exit_code = ExitCode.UNREACHABLE
    http_status = 503
    code = "DATABASE_UNAVAILABLE"


class SchemaMissing(DatabaseUnavailable):
    """The database answers but lacks our tables or columns."""


class DatabaseBusy(DatabaseUnavailable):
    """Somebody else held a lock for longer than it is waited for; nothing was done."""


class UnfitDatabase(DatabaseUnavailable):
    """The database answers and cannot be used as it is, however often it is asked: a pooler stands before it that gives
    each transaction another session, or it cannot keep every text."""


class DatabaseRefused(SkyctlError):
    """The database does not accept a statement or a row."""


class ManagerUnavailable(SkyctlError):
    """The API of the manager does not answer, or what answers is not the manager."""

    exit_code = ExitCode.UNREACHABLE
    http_status = 502
    code = "MANAGER_UNAVAILABLE"


class ManagerUntrusted(ManagerUnavailable):
    """The API of the manager answers with a certificate that nobody who is trusted vouches for."""


class ContextNotFound(SkyctlError):
    """This user has no context of that name."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "CONTEXT_NOT_FOUND"


class Busy(SkyctlError):
    """Too many requests of this kind wait already; nothing was done."""

    exit_code = ExitCode.UNREACHABLE
    http_status = 503
    code = "BUSY"
    retry_after_seconds = 2


class TooOften(Refused):
    """The same was asked too often within a short time."""

    http_status = 429
    code = "TOO_OFTEN"

    def __init__(self, message: str, hint: str, retry_after_seconds: int) -> None:
        super().__init__(message, hint)
        self.retry_after_seconds = retry_after_seconds


class EngineUnavailable(SkyctlError):
    """The Docker engine does not answer."""

    exit_code = ExitCode.UNREACHABLE
    http_status = 503
    code = "ENGINE_UNAVAILABLE"


class EngineElsewhere(EngineUnavailable):
    """This process is not to ask the engine: the monitor does."""


class EngineRefused(SkyctlError):
    """The Docker engine answers, but does not do what it is asked. The message holds its own words."""

    exit_code = ExitCode.REFUSED
    http_status = 409
    code = "ENGINE_REFUSED"


class EngineConflict(EngineRefused):
    """Somebody else has changed the service meanwhile, or removed it."""


class ServiceNotFound(SkyctlError):
    """No service has this id, prefix or name."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "SERVICE_NOT_FOUND"


class MigrationNotFound(SkyctlError):
    """No migration has this id or prefix."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "MIGRATION_NOT_FOUND"


class OrganizationNotFound(SkyctlError):
    """No organization has this id or slug."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "ORGANIZATION_NOT_FOUND"


class TokenNotFound(SkyctlError):
    """There is no such token of the API."""

    exit_code = ExitCode.NOT_FOUND
    http_status = 404
    code = "TOKEN_NOT_FOUND"
