"""What the answer to a heartbeat carries besides: a token to use from now on, an agent to upgrade to."""

from uuid import UUID

from skyctl.model import Event
from skyctl.operations import upgrades
from skyctl.operations.world import World
from skyctl.rules import tokens
from skyctl.store import credentials, events, workers
from skyctl.trust import Errand


def take(world: World, worker_id: UUID, token_hash: str) -> Errand:
    """What waits for a worker whose heartbeat, with the token of this hash, is stored.

    A beat with the new token is its first use: from then on it alone is good. Until then each beat is handed it again, for an
    answer may be lost; only its hash is stored, so it is signed anew from the same claims.
    """
    with world.db.transaction() as tx:
        known, worker = credentials.get(tx, worker_id), workers.get(tx, worker_id)
    agent = upgrades.offer(worker) if worker else None
    waits = known.next_token if known else None
    if waits is None:
        return Errand(agent=agent)
    if tokens.same(waits.token_hash, token_hash):
        _promote(world, worker_id, token_hash)
        return Errand(agent=agent)
    token, _ = tokens.issue_worker_token(world.secret, worker_id, tokens.ROTATION, waits.issued_at)
    return Errand(new_token=token, agent=agent)


def _promote(world: World, worker_id: UUID, token_hash: str) -> None:
    with world.db.transaction() as tx:
        events.lock(tx)
        known, worker = credentials.get(tx, worker_id, lock=True), workers.get(tx, worker_id)
        if worker and known and known.next_token and tokens.same(known.next_token.token_hash, token_hash):
            credentials.promote(tx, worker_id, known.next_token.issued_at + tokens.WORKER_LIFETIME)
            events.append(tx, Event("token_rotated", worker_id, worker.name, actor=f"worker:{worker.name}"))
