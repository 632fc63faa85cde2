"""The additions to the answers to heartbeats: a token to use from now on, an agent to upgrade to."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from skyctl.domain.cluster import Event, Heartbeat
from skyctl.domain.events import EventKind
from skyctl.domain.tokens import IssuedToken, Reply
from skyctl.operations.agents import upgrades
from skyctl.operations.shared import token_issue
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from skyctl.store import db, events, registrations
from skyctl.store import tokens as stored_tokens
from skyctl.store.registrations import Known


def take(context: Context, heartbeats: Sequence[Heartbeat]) -> list[Reply]:
    """Return what waits for the worker of each of these heartbeats, which are stored.

    The first heartbeat with the new token makes it the only good one. Until then each answer carries it again, since an
    answer may be lost; only its hash is stored, so it is signed again from the same claims. However many they are, they
    cost a few statements.
    """
    with context.db.transaction() as tx:
        known, now = registrations.known(tx, {UUID(heartbeat.worker_id) for heartbeat in heartbeats}), db.now(tx)
    asked = [(known.get(UUID(heartbeat.worker_id)), heartbeat.token_hash) for heartbeat in heartbeats]
    used = {its.worker.id: token_hash for its, token_hash in asked if its and _is_next(its, token_hash)}
    if used:
        _promote(context, used)
    return [_reply(context, its, token_hash, now) if its else Reply() for its, token_hash in asked]


def _is_next(known: Known, token_hash: str) -> bool:
    waiting = known.credentials.next_token
    return waiting is not None and tokens.same(waiting.token_hash, token_hash)


def _reply(context: Context, known: Known, token_hash: str, now: datetime) -> Reply:
    worker, waiting = known.worker, known.credentials.next_token
    agent = upgrades.offer(worker)
    # over plain HTTP, or with nowhere to keep a new one, the present one stays good
    if waiting is None or _is_next(known, token_hash) or not known.credentials.takes_tokens:
        return Reply(agent=agent)
    signed = token_issue.handed_over(context, worker.id, waiting, now)
    return Reply(signed or _replace_lost(context, worker.id, waiting), agent)


def _replace_lost(context: Context, worker_id: UUID, lost: IssuedToken) -> str | None:
    """Issue another token in place of one that cannot be signed again, which nobody has then; None where another
    request did so first."""
    with context.db.transaction() as tx:
        known = stored_tokens.get(tx, worker_id, lock=True)
        return token_issue.replace_token(context, tx, worker_id) if known and known.next_token == lost else None


def _promote(context: Context, used: Mapping[UUID, str]) -> None:
    """Make the next tokens that were used, by workers, the only good ones; whom somebody else is changing right now
    uses it once more."""
    with context.db.transaction() as tx:
        db.limit_lock_waits(tx)  # whoever is not served by then uses it once more
        events.lock(tx)
        promoted = [
            known.worker
            for known in registrations.known(tx, used, lock=True).values()
            if _is_next(known, used[known.worker.id])
        ]
        stored_tokens.promote(tx, [worker.id for worker in promoted], tokens.WORKER_LIFETIME)
        events.append(
            tx, *(Event(EventKind.TOKEN_ROTATED, each.id, each.name, actor=f"worker:{each.name}") for each in promoted)
        )
