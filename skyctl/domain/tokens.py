"""Tokens of workers: what is kept of them, how one is replaced, and what the reply to a heartbeat carries for it."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, Literal, NamedTuple

from skyctl.domain.errors import SkyctlError

WORKER_KEY_ID = "w-"
"""The beginning of the ids of keys that sign nothing but workers' tokens."""


@dataclass(frozen=True, slots=True)
class Key:
    """A secret that signs tokens; one that no longer does is accepted until its time. `workers_only`: no token of an
    administrator is signed by it."""

    secret: str = field(repr=False)
    good_until: datetime | None = None
    workers_only: bool = False

    @property
    def id(self) -> str:
        """An identifier that distinguishes it from others without giving it away."""
        digest = hashlib.sha256(f"key:{self.secret}".encode()).hexdigest()[:12]
        return WORKER_KEY_ID + digest if self.workers_only else digest

    def for_workers(self, salt: str) -> "Key":
        """Derive the key of workers' tokens, HKDF-SHA256 of one block (RFC 5869): who holds a token that it signed, and
        not the salt, can try no guess at the secret."""
        extracted = hmac.digest(salt.encode(), self.secret.encode(), "sha256")
        derived = hmac.digest(extracted, b"skyctl: tokens of workers\x01", "sha256").hex()
        return Key(derived, self.good_until, workers_only=True)


class ReplyPending(Enum):
    """That something waits for a worker whose heartbeat is stored."""

    REPLY_PENDING = "reply pending"


REPLY_PENDING: Final = ReplyPending.REPLY_PENDING

Outcome = SkyctlError | Literal[ReplyPending.REPLY_PENDING] | None
"""The outcome of a heartbeat: None once it is committed, REPLY_PENDING where its answer carries more, or why it was not
stored."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The additions to the answer to a heartbeat: the token to use from now on (a secret), an agent to upgrade to."""

    new_token: str | None = field(default=None, repr=False)
    agent: Mapping[str, object] | None = None

    def document(self) -> dict[str, object]:
        """As the answer carries it: nothing of what does not wait."""
        return {key: value for key, value in (("newToken", self.new_token), ("agent", self.agent)) if value}


class IssuedToken(NamedTuple):
    """A token as it is stored: its SHA-256, when it was signed, and by which key."""

    token_hash: str
    issued_at: datetime
    key_id: str


class HostIdentity(NamedTuple):
    """The host that uses a token: the digest of its machine's id, its boot, its agent's process, its name; empty where
    it does not report them."""

    machine_id: str
    boot_id: str
    instance_id: str
    hostname: str
    ip_address: str

    @property
    def place(self) -> str:
        """The part that stays the same when only the agent is started again."""
        return f"{self.boot_id} {self.hostname} {self.ip_address}"


@dataclass(frozen=True, slots=True)
class Claimant:
    """Another one that wants to register as a worker's machine while the worker beats: since when, and whether it was
    told that both are alive, so that one is a copy."""

    since: datetime
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class Credentials:
    """The tokens of a worker, as the SHA-256 of each: the one that is good (empty where it was revoked) and until when,
    the one that shall replace it and was not used yet, the one of an invitation; the machine that holds them, and its
    rivals by place."""

    token_hash: str
    expires_at: datetime | None
    next_token: IssuedToken | None
    invitation_hash: str | None
    invitation_expires_at: datetime | None
    revoked_at: datetime | None
    revoked_reason: str | None
    holder: HostIdentity
    claimants: Mapping[str, Claimant]
    takes_tokens: bool
    last_heartbeat_at: datetime | None
    bound_at: datetime | None


class TokenState(Enum):
    """The relation of a token to its worker."""

    CURRENT = "current"
    NEXT = "next"
    INVITATION = "invitation"
    STALE = "stale"


class Identity(Enum):
    """The judgement of a host that wants to register as a worker: it is the one, another machine, one that may be a
    copy, a copy."""

    SAME = "same"
    OTHER_MACHINE = "other machine"
    UNCERTAIN = "uncertain"
    CLONE = "clone"
