"""Stories of a worker's own requests: it registers, it beats, it is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from skyctl.domain.cluster import Beat, Event, Registration, Worker
from skyctl.domain.errors import DatabaseRefused, Forbidden, Refused, SkyctlError, Unauthorized, WorkerNotFound
from skyctl.domain.tokens import ERRAND, Outcome
from skyctl.operations.agents import registration as registration_agents
from skyctl.operations.agents import upgrades
from skyctl.operations.shared.context import World
from skyctl.rules import clocks, health, identity, names, tokens
from skyctl.store import db, events, workers
from skyctl.store import tokens as stored_tokens

Key = tuple[str, str]
"""A worker's id and the hash of the token that it beats with."""

fingerprint = tokens.fingerprint


def register(world: World, token: str, registration: Registration) -> Worker:
    """Store what a host says of itself. Its token must be ours, a worker's, and good for that worker on that machine.

    A token that we signed for a worker that the database does not know (it was restored from a backup, or the panel
    issued the token) makes that worker; the token of a removed worker does not. Raises Unauthorized, Forbidden,
    Refused.
    """
    with world.db.transaction() as tx:
        events.lock(tx)
        now = db.now(tx)
        claims = tokens.verify_worker_token(world.keys.accepted(now), token, now)
        refusal = registration_agents.admit(world, tx, claims, tokens.fingerprint(token), registration)
        if refusal is None:
            return _store(tx, claims.worker_id, registration)
    raise refusal  # once what was seen of it is stored


def _store(tx: db.Transaction, worker_id: UUID, registration: Registration) -> Worker:
    before = _existing(tx, worker_id)
    _refuse_foreign_node(tx, worker_id, registration)
    told = _with_clock_offset(registration, db.now(tx))
    workers.set_registration(tx, worker_id, names.registered(before, registration.hostname), told)
    after = _existing(tx, worker_id)
    if (before.hostname, before.ip_address) != (after.hostname, after.ip_address):
        details = {"hostname": registration.hostname, "ipAddress": registration.ip_address}
        events.append(tx, Event("registered", worker_id, after.name, actor=f"worker:{after.name}", details=details))
    upgrades.settle(tx, after)
    db.notify_news(tx)
    return after


async def record(world: World, beats: Sequence[Beat]) -> list[Outcome]:
    """Store a batch of heartbeats in one statement; for each, None once it is committed, ERRAND where the answer has to
    carry something besides (see `errands`), or why it was not stored.

    Where the database refuses the batch for a row in it, each half is stored for itself, until only that row fails.
    Raises DatabaseUnavailable.
    """
    keys = [(beat.worker_id, beat.token_hash) for beat in beats]
    last = dict(zip(keys, beats, strict=True))
    try:
        positions = await _record_batch(world, list(last.values()))
    except DatabaseRefused as error:
        if len(beats) == 1:
            return [error]
        middle = len(beats) // 2
        return await record(world, beats[:middle]) + await record(world, beats[middle:])
    kept = list(last)
    stored: dict[Key, Outcome] = {kept[position]: outcome for position, outcome in positions}
    if len(stored) < len(last):
        stored |= await _record_second(world, [(key, last[key]) for key in kept if key not in stored], stored)
    refused = Unauthorized("the token is not this worker's", registration_agents.REPLACED)
    return [stored.get(key, refused) for key in keys]


async def _record_second(
    world: World, left: Sequence[tuple[Key, Beat]], stored: Mapping[Key, Outcome]
) -> dict[Key, Outcome]:
    """Store what was left of workers that have beaten with another token in the same batch: a statement touches a row
    once."""
    heard = {worker_id for worker_id, _ in stored}
    second = [(key, beat) for key, beat in left if key[0] in heard]
    positions = await _record_batch(world, [beat for _, beat in second]) if second else []
    return {second[position][0]: outcome for position, outcome in positions}


async def _record_batch(world: World, beats: Sequence[Beat]) -> list[tuple[int, Outcome]]:
    """Store beats of different workers; the positions and outcomes of those that were.

    News is told after the commit and before the answer: where that fails, the worker beats again, and it is news again.
    """
    stored = await workers.record_loads(world.db.lane, beats)
    if any(health.is_news(status, beats[n].load, world.limits) for status, _, found in stored for n in found):
        await db.notify_news_now(world.db.lane)
    return [(position, ERRAND if errand else None) for _, errand, found in stored for position in found]


def why_refused(world: World, path_id: UUID, token: str) -> SkyctlError:
    """Why a heartbeat was not stored, looked at in full once it was not: 401, 403 or 404."""
    with world.db.transaction() as tx:
        now = db.now(tx)
        try:
            claims = tokens.verify_worker_token(world.keys.accepted(now), token, now)
            if claims.worker_id != path_id:
                return Forbidden("the token is another worker's", "each worker beats with its own token")
            if known := stored_tokens.get(tx, path_id):
                registration_agents.refuse_unusable(known, identity.standing(known, tokens.fingerprint(token)), now)
                return Unauthorized("the token is not this worker's", registration_agents.REPLACED)
            registration_agents.refuse_removed(tx, path_id)
        except (Unauthorized, Forbidden) as error:
            return error
    return WorkerNotFound(f"there is no worker {path_id}", "register it: POST /api/workers/register")


def _with_clock_offset(registration: Registration, now: datetime) -> Registration:
    """The registration, what the host's clock showed replaced by how far that is from the database's. Nothing else uses
    it."""
    metadata = {key: value for key, value in registration.metadata.items() if key not in ("clock", clocks.OFFSET)}
    offset = clocks.offset_seconds(registration.metadata.get("clock"), now)
    return replace(registration, metadata=metadata if offset is None else {**metadata, clocks.OFFSET: offset})


def _refuse_foreign_node(tx: db.Transaction, worker_id: UUID, registration: Registration) -> None:
    node = registration.metadata.get("swarmNodeId")
    owner = workers.node_owner(tx, node) if isinstance(node, str) and node else None
    if owner and owner.id != worker_id:
        raise Refused(
            f"metadata.swarmNodeId: {node!r} is the node of worker {owner.name} ({owner.id})",
            f"if that worker is gone: skyctl workers remove {owner.id}",
        )


def _existing(tx: db.Transaction, worker_id: UUID) -> Worker:
    worker = workers.get(tx, worker_id)
    if worker is None:
        raise WorkerNotFound(f"there is no worker {worker_id}")
    return worker
