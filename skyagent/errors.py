"""The errors of the agent: a configuration or a status that is no good, reports that are not accepted. No message holds
a secret."""

from __future__ import annotations


class ConfigError(Exception):
    """The configuration cannot be used: the message names the field and its value, `hint` the remedy."""

    exit_code = 2

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class StatusError(ConfigError):
    """There is no status to show; said like an error of the configuration."""

    exit_code = 1


class Failure(Exception):
    """A report that was not accepted: the message is the reason, `action` what the log calls it.

    `retry_after_seconds` is the least time that the manager wants to be left alone for.
    """

    action: str

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Failing(Failure):
    """The manager answers, but not as agreed (any other status, or no JSON)."""

    action = "manager_failing"


class Unreachable(Failure):
    """There was no answer: no connection, no time left, or no HTTP."""

    action = "manager_unreachable"


class Refused(Failure):
    """The manager does not accept the token (401, 403), or not from this machine."""

    action = "refused"


class UnknownWorker(Failure):
    """The manager has no such worker (404)."""

    action = "unknown_worker"


class Unmeasured(Failure):
    """A figure could not be measured and was never known, so there is nothing true to report."""

    action = "unmeasured"


class EngineAway(Exception):
    """The Docker engine gave no usable answer; the message is the reason. `denied`: this process may not ask it."""

    denied = False


class EngineDenied(EngineAway):
    """This process may not use the engine's socket."""

    denied = True
