"""Tokens of the API that are nobody's login: what may be done by one, and what is known of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal
from uuid import UUID

PREFIX = "skyctl_"
"""The beginning of every such token, by which it is told from others, also where one was published by mistake."""
USE_NOTED_EVERY = timedelta(minutes=1)


class Role(StrEnum):
    """What may be done by a token: a viewer sees, an operator also changes where containers run, an administrator does
    all else, too. Each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, needed: "Role") -> bool:
        """Tell whether this role suffices for what needs that one."""
        roles = list(Role)
        return roles.index(self) >= roles.index(needed)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token as it is kept, without its secret. `expires_at`: None for never; `last_used_at` is up to a minute old."""

    id: UUID
    name: str
    role: Role
    made_by: str
    made_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    last_used_from: str | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def state(self, now: datetime) -> Literal["good", "expired", "revoked"]:
        """Tell whether it is accepted, and why not."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and now >= self.expires_at else "good"

    def is_use_to_be_noted(self, now: datetime) -> bool:
        """Tell whether its last use was not noted a moment ago."""
        return self.last_used_at is None or now - self.last_used_at >= USE_NOTED_EVERY
