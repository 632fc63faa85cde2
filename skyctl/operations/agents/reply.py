"""The additions to the answer to a heartbeat: a token to use from now on, an agent to upgrade to."""

from uuid import UUID

from skyctl.domain.cluster import Event
from skyctl.domain.events import EventKind
from skyctl.domain.tokens import IssuedToken, Reply
from skyctl.operations.agents import upgrades
from skyctl.operations.shared import token_issue
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from skyctl.store import db, events, workers
from skyctl.store import tokens as stored_tokens


def take(context: Context, worker_id: UUID, token_hash: str) -> Reply:
    """Return what waits for a worker whose heartbeat, with the token of this hash, is stored.

    The first heartbeat with the new token makes it the only good one. Until then each answer carries it again, since an
    answer may be lost; only its hash is stored, so it is signed again from the same claims.
    """
    with context.db.transaction() as tx:
        known, worker, now = stored_tokens.get(tx, worker_id), workers.get(tx, worker_id), db.now(tx)
    agent = upgrades.offer(worker) if worker else None
    waiting = known.next_token if known else None
    if known is None or waiting is None:
        return Reply(agent=agent)
    if tokens.same(waiting.token_hash, token_hash):
        _promote(context, worker_id, token_hash)
        return Reply(agent=agent)
    if not known.takes_tokens:  # over plain HTTP, or with nowhere to keep one: the present one stays good
        return Reply(agent=agent)
    keys = {key.id: key for key in context.keys.accepted(now)}
    signed = token_issue.sign(keys[waiting.key_id], worker_id, waiting.issued_at) if waiting.key_id in keys else ""
    if not tokens.same(tokens.fingerprint(signed), waiting.token_hash):
        return Reply(new_token=_replace_lost(context, worker_id, waiting), agent=agent)
    return Reply(new_token=signed, agent=agent)


def _replace_lost(context: Context, worker_id: UUID, lost: IssuedToken) -> str | None:
    """Issue another token in place of one that cannot be signed again, which nobody has then; None where another
    request did so first."""
    with context.db.transaction() as tx:
        known = stored_tokens.get(tx, worker_id, lock=True)
        return token_issue.replace_token(context, tx, worker_id) if known and known.next_token == lost else None


def _promote(context: Context, worker_id: UUID, token_hash: str) -> None:
    with context.db.transaction() as tx:
        events.lock(tx)
        known, worker = stored_tokens.get(tx, worker_id, lock=True), workers.get(tx, worker_id)
        if worker and known and known.next_token and tokens.same(known.next_token.token_hash, token_hash):
            stored_tokens.promote(tx, worker_id, known.next_token.issued_at + tokens.WORKER_LIFETIME)
            events.append(tx, Event(EventKind.TOKEN_ROTATED, worker_id, worker.name, actor=f"worker:{worker.name}"))
