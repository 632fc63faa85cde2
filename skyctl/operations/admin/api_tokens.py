"""Tokens of the API: make, list and revoke them."""

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

from skyctl.domain.api_tokens import PREFIX, ApiToken, Role
from skyctl.domain.cluster import Actor, Event
from skyctl.domain.errors import Refused, TokenNotFound
from skyctl.domain.event_details import ApiTokenRef, NewApiToken
from skyctl.domain.events import EventKind
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from skyctl.store import api_tokens, db, events

SECRET_BYTES = 32


def create(context: Context, actor: Actor, name: str, role: Role, ttl: timedelta | None) -> tuple[ApiToken, str]:
    """Make a token that is good for `ttl` (None: for ever); return what is kept of it, and the token, a secret that
    nobody can be told again.

    Raises Refused where one that is not revoked has this name.
    """
    token = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    with context.recording() as tx:
        now = db.now(tx)
        made = ApiToken(uuid4(), name, role, actor.name, now, None if ttl is None else now + ttl)
        if not api_tokens.insert(tx, tokens.fingerprint(token), made):
            raise Refused(f"there is a token {name} already", f"revoke it first: skyctl tokens revoke {name}")
        details = NewApiToken(
            tokenId=str(made.id),
            tokenName=name,
            role=role.value,
            expiresAt=made.expires_at.isoformat() if made.expires_at else None,
        )
        reason = f"{name} ({role.value})"
        events.record(
            tx, Event(EventKind.API_TOKEN_MADE, None, None, actor.name, reason=reason, details=details), actor
        )
    return made, token


def list_tokens(context: Context) -> tuple[list[ApiToken], datetime]:
    """Return all tokens, and when that was read; also those that are no longer good."""
    with context.db.transaction() as tx:
        return api_tokens.everything(tx), db.now(tx)


def revoke(context: Context, actor: Actor, reference: str) -> ApiToken:
    """Refuse a token, by its name or id, from the next request on.

    Raises TokenNotFound, or Refused where it is revoked already.
    """
    with context.recording() as tx:
        named = [each for each in api_tokens.everything(tx) if reference in (each.name, str(each.id))]
        if not named:
            raise TokenNotFound(f"there is no token {reference!r}", "see `skyctl tokens list --all`")
        # one that is revoked may have the name of a later one
        found = next((each for each in named if each.revoked_at is None), named[-1])
        if not api_tokens.revoke(tx, found.id, actor.name):
            raise Refused(f"the token {found.name} is revoked already", "see `skyctl tokens list --all`")
        details = ApiTokenRef(tokenId=str(found.id), tokenName=found.name)
        event = Event(EventKind.API_TOKEN_REVOKED, None, None, actor.name, reason=found.name, details=details)
        events.record(tx, event, actor)
        return replace(found, revoked_at=db.now(tx), revoked_by=actor.name)
