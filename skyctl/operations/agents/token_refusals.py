"""Refusals of workers' tokens: revoked, expired, replaced, or the worker was removed."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from skyctl.domain.errors import Forbidden, InvitationExpired, TokenRevoked, Unauthorized
from skyctl.domain.tokens import Credentials, Key, TokenState
from skyctl.rules import tokens
from skyctl.store import db, events, schema

KEYS_APART = 7
FORMER_ACCEPTED = timedelta(days=90)
REPLACED = (
    "its token was replaced: run the install script of a new invitation: skyctl workers install-script --worker NAME"
)


def refuse_unusable(known: Credentials, token_state: TokenState, now: datetime) -> None:
    """Raise TokenRevoked, InvitationExpired or Unauthorized where a token in this state is not good."""
    if known.revoked_at and token_state is not TokenState.INVITATION:
        why = f": {known.revoked_reason}" if known.revoked_reason else ""
        raise TokenRevoked(f"the token of this worker was revoked at {_shown(known.revoked_at)}{why}", REPLACED)
    until = known.invitation_expires_at if token_state is TokenState.INVITATION else known.expires_at
    if token_state not in (TokenState.INVITATION, TokenState.CURRENT) or until is None or until > now:
        return
    unused = token_state is TokenState.INVITATION or not known.holder.hostname
    if unused and token_state is TokenState.CURRENT and known.last_heartbeat_at:
        return  # a first heartbeat in time is a use
    if unused:
        raise InvitationExpired(f"the invitation expired at {_shown(until)}", tokens.INVITE_AGAIN)
    raise Unauthorized("the token has expired", tokens.INVITE_AGAIN)


def refuse_removed(tx: db.Transaction, worker_id: UUID) -> None:
    """Raise Forbidden where a worker of this id was ever removed."""
    if events.was_removed(tx, worker_id):
        raise Forbidden("this worker was removed", tokens.INVITE_AGAIN)


def refuse_former(tx: db.Transaction, key: Key, now: datetime) -> None:
    """Raise Unauthorized where a token of a worker that the database does not know was signed by the secret of
    administrators' tokens, as up to schema version 6, and that version is long gone."""
    since = schema.applied_at(tx, KEYS_APART)
    if not key.workers_only and since is not None and now - since > FORMER_ACCEPTED:
        raise Unauthorized("the token is of a former version, and its worker is not known", tokens.INVITE_AGAIN)


def _shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
