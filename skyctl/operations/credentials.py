"""Stories of a worker's token: it is replaced, it is revoked."""

from uuid import UUID

from skyctl.errors import WorkerNotFound
from skyctl.model import Actor, Event, Worker
from skyctl.operations.world import World
from skyctl.rules import tokens
from skyctl.store import credentials, db, events, workers
from skyctl.trust import IssuedToken


def rotate(world: World, worker_id: UUID, actor: Actor) -> Worker:
    """Let a worker's token be replaced: its next heartbeat's answer carries the new one, the old one is good until that was used.

    Raises WorkerNotFound.
    """
    with world.db.transaction() as tx:
        events.lock(tx)
        worker = workers.get(tx, worker_id, lock=True)
        if worker is None:
            raise WorkerNotFound(f"there is no worker {worker_id}", "see `skyctl workers list`")
        now = db.now(tx)
        token, _ = tokens.issue_worker_token(world.secret, worker_id, tokens.ROTATION, now)
        credentials.set_next(tx, worker_id, IssuedToken(tokens.fingerprint(token), now))
        events.record(tx, Event("token_rotation_asked", worker_id, worker.name, actor.name), actor)
        return worker
