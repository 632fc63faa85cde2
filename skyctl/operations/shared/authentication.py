"""Authenticate the holder of a token: an administrator, or a worker."""

import hmac

from skyctl.domain.cluster import Actor, Worker
from skyctl.domain.errors import Forbidden, Unauthorized
from skyctl.domain.tokens import TokenState
from skyctl.operations.shared.context import Context
from skyctl.rules import identity, tokens
from skyctl.store import db, installation, organizations, workers
from skyctl.store import tokens as stored_tokens

LONGEST_TOKEN = 4096


def holder_of(context: Context, token: str, *, is_admin: bool) -> str:
    """Return the id of the worker or the user whom a token was signed for; the keys must be at hand. Raises
    Unauthorized or Forbidden where it can be seen without the database that it is not an administrator's, or not a
    worker's."""
    keys = context.keys.at_hand() or ()
    holder = tokens.signed_for(keys, token) if len(token) <= LONGEST_TOKEN else None
    if holder is None:
        raise Unauthorized(
            "the token was not issued by this manager", tokens.SIGN_IN_AGAIN if is_admin else tokens.INVITE_AGAIN
        )
    if is_admin and holder.is_worker:
        raise Forbidden("the token is not an administrator's", "sign in to the panel as an administrator")
    if not is_admin and not holder.is_worker:
        raise Forbidden("the token is not a worker's", tokens.INVITE_AGAIN)
    return holder.id


def administrator(context: Context, token: str, ip_address: str | None = None, user_agent: str | None = None) -> Actor:
    """Return the administrator of a token, and from where they act.

    Raises Unauthorized, or Forbidden for a user who is no administrator.
    """
    with context.db.transaction() as tx:
        now = db.now(tx)
        issued_from = installation.admin_tokens_from(tx)
        keys = list(reversed(context.keys.accepted(now)))  # the workers' own as well, to say what such a token is
        user_id = tokens.verify_admin_token(keys, token, now, issued_from)
        user = organizations.email_and_role(tx, user_id)
    if user is None:
        raise Unauthorized("the token's user does not exist", "sign in to the panel as an administrator")
    email, role = user
    if role != "admin":
        raise Forbidden("only administrators may do this", "sign in to the panel as an administrator")
    return Actor(email, user_id, ip_address, user_agent)


def reader_of_metrics(context: Context, token: str) -> None:
    """Let in whoever has the token of the metrics, or is an administrator. Raises as `administrator` does."""
    if not has_metrics_token(context, token):
        administrator(context, token)


def has_metrics_token(context: Context, token: str) -> bool:
    """Tell whether this is the token of the metrics."""
    known = context.metrics_token
    return bool(known) and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), (known or "").encode())


def worker_of_token(context: Context, token: str) -> Worker | None:
    """Return the worker of a token; None where the token is not, or no longer, a worker's."""
    with context.db.transaction() as tx:
        now = db.now(tx)
        try:
            worker_id = tokens.verify_worker_token(context.keys.accepted(now), token, now).worker_id
        except (Unauthorized, Forbidden):
            return None
        stored = stored_tokens.get(tx, worker_id)
        is_valid = stored and identity.token_state(stored, tokens.fingerprint(token)) is not TokenState.STALE
        return workers.get(tx, worker_id) if is_valid else None
