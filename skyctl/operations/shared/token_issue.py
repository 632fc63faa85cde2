"""Issue a new token for a worker, which is handed over later."""

from datetime import datetime
from uuid import UUID

from skyctl.domain.tokens import IssuedToken, Key
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from skyctl.store import db
from skyctl.store import tokens as stored_tokens


def replace_token(context: Context, tx: db.Transaction, worker_id: UUID) -> str:
    """Issue a new token for a worker, to be handed over by the reply to its next heartbeat; return it."""
    key, now = context.keys.signing(), db.now(tx)
    token = sign(key, worker_id, now)
    stored_tokens.set_next(tx, worker_id, IssuedToken(tokens.fingerprint(token), now, key.id))
    return token


def following(context: Context, worker_id: UUID, now: datetime) -> IssuedToken:
    """Issue a new token for a worker, and return what is to be stored of it."""
    key = context.keys.signing()
    return IssuedToken(tokens.fingerprint(sign(key, worker_id, now)), now, key.id)


def handed_over(context: Context, worker_id: UUID, waiting: IssuedToken, now: datetime) -> str | None:
    """Return the token of which this is stored, to be handed over; None where it cannot be signed again, since the key
    is gone."""
    keys = {key.id: key for key in context.keys.accepted(now)}
    signed = sign(keys[waiting.key_id], worker_id, waiting.issued_at) if waiting.key_id in keys else ""
    return signed if tokens.same(tokens.fingerprint(signed), waiting.token_hash) else None


def sign(key: Key, worker_id: UUID, issued_at: datetime) -> str:
    """Return the token of a rotation; the same arguments give the same token, so that it need not be stored."""
    return tokens.issue_worker_token(key.secret, worker_id, tokens.ROTATION, issued_at)[0]
