"""Heartbeats: store them in batches, and say why one was refused."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from skyctl.domain.cluster import Heartbeat
from skyctl.domain.errors import DatabaseRefused, Forbidden, SkyctlError, Unauthorized, WorkerNotFound
from skyctl.domain.tokens import REPLY_PENDING, Outcome
from skyctl.operations.agents import token_refusals
from skyctl.operations.shared.context import Context
from skyctl.rules import health, identity, tokens
from skyctl.store import db, workers
from skyctl.store import tokens as stored_tokens

Key = tuple[str, str]
"""A worker's id and the hash of the token that its heartbeat has."""

fingerprint = tokens.fingerprint


async def record(context: Context, heartbeats: Sequence[Heartbeat]) -> list[Outcome]:
    """Store a batch of heartbeats in one statement.

    Return for each, in order, None once it is committed, REPLY_PENDING where its answer has to carry something more
    (see `reply`), or why it was not stored. Where the database refuses the batch because of one row, each half is
    stored by itself, until only that row fails. Raises DatabaseUnavailable.
    """
    keys = [(heartbeat.worker_id, heartbeat.token_hash) for heartbeat in heartbeats]
    last = dict(zip(keys, heartbeats, strict=True))
    try:
        positions = await _record_batch(context, list(last.values()))
    except DatabaseRefused as error:
        if len(heartbeats) == 1:
            return [error]
        middle = len(heartbeats) // 2
        return await record(context, heartbeats[:middle]) + await record(context, heartbeats[middle:])
    kept = list(last)
    stored: dict[Key, Outcome] = {kept[position]: outcome for position, outcome in positions}
    if len(stored) < len(last):
        stored |= await _record_second(context, [(key, last[key]) for key in kept if key not in stored], stored)
    refused = Unauthorized("the token is not this worker's", token_refusals.REPLACED)
    return [stored.get(key, refused) for key in keys]


async def known(context: Context, keys: Collection[Key]) -> set[Key]:
    """Return those of the keys, at least one, that are stored, so that reading their heartbeats may be worth it. Raises
    DatabaseUnavailable."""
    return await stored_tokens.stored(context.db.heartbeat_connection, keys)


async def probe(context: Context) -> None:
    """Return once a heartbeat could be stored, after those that are on their way. Raises DatabaseUnavailable."""
    await workers.probe(context.db.heartbeat_connection)


async def _record_second(
    context: Context, left: Sequence[tuple[Key, Heartbeat]], stored: Mapping[Key, Outcome]
) -> dict[Key, Outcome]:
    """Store the heartbeats that are left of workers with two in the batch, by different tokens: a statement writes a
    row only once."""
    heard = {worker_id for worker_id, _ in stored}
    second = [(key, heartbeat) for key, heartbeat in left if key[0] in heard]
    positions = await _record_batch(context, [heartbeat for _, heartbeat in second]) if second else []
    return {second[position][0]: outcome for position, outcome in positions}


async def _record_batch(context: Context, heartbeats: Sequence[Heartbeat]) -> list[tuple[int, Outcome]]:
    """Store heartbeats of different workers; return the positions and outcomes of those that were stored.

    The monitor is notified of news after the commit and before the answer: where that fails, the agent sends its
    heartbeat again, and it is news again.
    """
    stored = await workers.record_loads(context.db.heartbeat_connection, heartbeats, context.health)
    news = [
        str(heartbeats[position].worker_id)
        for each in stored
        if health.is_news(
            each.status,
            exhausted=each.exhausted,
            engine_fails=each.engine_fails,
            engine_failed=each.engine_failed,
        )
        for position in each.positions
    ]
    if news:
        await db.notify_news_now(context.db.heartbeat_connection, news)
    return [(n, REPLY_PENDING if each.reply_pending else None) for each in stored for n in each.positions]


def why_refused(context: Context, path_id: UUID, token: str) -> SkyctlError:
    """Return why a heartbeat was not stored: 401, 403 or 404. Reads all that the fast path does not."""
    with context.db.transaction() as tx:
        now = db.now(tx)
        try:
            claims = tokens.verify_worker_token(context.keys.accepted(now), token, now)
            if claims.worker_id != path_id:
                return Forbidden("the token is another worker's", "each worker beats with its own token")
            if known := stored_tokens.get(tx, path_id):
                token_refusals.refuse_unusable(known, identity.token_state(known, tokens.fingerprint(token)), now)
                return Unauthorized("the token is not this worker's", token_refusals.REPLACED)
            token_refusals.refuse_removed(tx, path_id)
        except (Unauthorized, Forbidden) as error:
            return error
    return WorkerNotFound(f"there is no worker {path_id}", "register it: POST /api/workers/register")
