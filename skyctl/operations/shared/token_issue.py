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


def sign(key: Key, worker_id: UUID, issued_at: datetime) -> str:
    """Return the token of a rotation; the same arguments give the same token, so that it need not be stored."""
    return tokens.issue_worker_token(key.secret, worker_id, tokens.ROTATION, issued_at)[0]
