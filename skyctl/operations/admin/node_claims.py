"""What administrators say of swarm nodes: that one is a worker's, where the engine cannot show it, or where it manages
the swarm."""

from uuid import UUID

from skyctl.domain.cluster import Actor, Event, Worker
from skyctl.domain.errors import EngineUnavailable, Refused
from skyctl.domain.event_details import ClaimedNode
from skyctl.domain.events import EventKind
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.store import db, events, node_claims, workers


def allow(context: Context, worker_id: UUID, shown: str | None, actor: Actor) -> tuple[Worker, str]:
    """Say that the node which a worker claims, as it was shown, is its own; the monitor confirms it then. Return the
    worker and the node's hostname.

    Raises WorkerNotFound, EngineUnavailable, and Refused where it claims none or another one by now, or one that the
    swarm does not have or on which another worker has containers.
    """
    nodes = context.engine().observe(()).nodes
    with context.recording() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        node_id = worker.swarm_node_id or worker.swarm_node_claim
        if node_id is None:
            raise Refused(f"{worker.name} claims no swarm node", "let its host join the swarm; its agent says so then")
        if node_id != shown:
            raise Refused(f"{worker.name} claims another swarm node by now: {node_id}", "look at it, and confirm again")
        if node_id not in nodes:
            raise Refused(f"the swarm has no node {node_id}", "see `docker node ls`")
        holder = node_claims.holder(tx, node_id)
        if holder and holder != worker_id and workers.occupying_deployments(tx, holder):
            name = lookup.get_worker(tx, holder).name
            raise Refused(f"the node is that of worker {name}, which has containers", f"drain it first: {holder}")
        _note(tx, worker, node_id, actor)
    return worker, nodes[node_id].hostname


def allow_own(context: Context, worker_id: UUID, actor: Actor) -> None:
    """Say that the engine's own node is this worker's, which runs beside it; nothing where the engine is in no swarm,
    or cannot be asked."""
    try:
        state = context.engine().state()
    except EngineUnavailable:
        return
    if state and state.node_id:
        with context.recording() as tx:
            _note(tx, lookup.lock_worker(tx, worker_id), state.node_id, actor)


def _note(tx: db.Transaction, worker: Worker, node_id: str, actor: Actor) -> None:
    if node_claims.allow(tx, worker.id, node_id):
        details = ClaimedNode(swarmNodeId=node_id)
        events.record(tx, Event(EventKind.NODE_ALLOWED, worker.id, worker.name, actor.name, details=details), actor)
        db.notify_news(tx)
