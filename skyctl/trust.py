"""The words of credentials: how a worker's token is replaced, and what the answer to a heartbeat carries for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, Literal, NamedTuple

from skyctl.errors import SkyctlError


class Waiting(Enum):
    """That something waits for a worker whose heartbeat is stored."""

    ERRAND = "errand"


ERRAND: Final = Waiting.ERRAND

Outcome = SkyctlError | Literal[Waiting.ERRAND] | None
"""Of a heartbeat: None once it is committed, ERRAND where its answer has to carry something besides, or why it was not stored."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What the answer to a heartbeat carries besides: the token to use from now on (a secret), an agent to upgrade to."""

    new_token: str | None = field(default=None, repr=False)
    agent: Mapping[str, object] | None = None

    def document(self) -> dict[str, object]:
        """As the answer carries it: nothing of what does not wait."""
        return {key: value for key, value in (("newToken", self.new_token), ("agent", self.agent)) if value}


class IssuedToken(NamedTuple):
    """A token as it is stored: its SHA-256, and when it was signed."""

    token_hash: str
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """The tokens of a worker, as the SHA-256 of each: the one that is good (empty where it was revoked) and until when, the one
    that shall replace it and was not used yet, the one before."""

    token_hash: str
    expires_at: datetime | None
    next_token: IssuedToken | None
    previous_hash: str | None
    revoked_at: datetime | None
    revoked_reason: str | None
