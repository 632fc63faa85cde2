"""Drains from their beginning by the panel to their end: where a worker's node is empty by what the engine shows, or
nothing more moves."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from skyctl.domain.cluster import Event, Worker
from skyctl.domain.engine import Observation, Occupant
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.events import DrainEnd, EventKind
from skyctl.domain.workloads import DrainOptions, Service
from skyctl.operations.shared.leadership import Term
from skyctl.rules.tasks import occupants
from skyctl.store import db, deployments, drains, migrations, services, workers

LOOK_SECONDS = 1.0
COUNTED = timedelta(seconds=2)  # an agent counts a moment before it says so
MOST_NAMES = 100


class Remains(NamedTuple):
    """What is left on a drained worker: services of ours, and the containers of others as they are named; whether some
    of that may yet end by itself, or is not known yet."""

    ours: Sequence[Service]
    others: Mapping[str, int]
    is_settled: bool


def adopt(tx: db.Transaction, term: Term) -> list[Event]:
    """Request the drains that the panel asked for, which writes a status and no more."""
    asked = drains.said_by_status(tx)
    if asked:
        drains.hold_heartbeats(tx)
    for worker_id in asked:
        drains.request(tx, worker_id, DrainOptions())
    reason = "by its status"
    return [
        Event(EventKind.DRAIN_REQUESTED, worker_id, name, "panel", reason=reason, term=term.number)
        for worker_id, name in asked.items()
    ]


def look(term: Term) -> Observation | None:
    """Return what the engine runs, where a drain may be over; None where none may, or the engine does not say."""
    with term.reading() as tx:
        if not drains.ending(tx):
            return None
    with suppress(EngineUnavailable):
        return term.observe()
    return None


def finish(tx: db.Transaction, term: Term, seen: Observation | None) -> tuple[list[Event], bool]:
    """Note the drains that are over, except those whose last containers are still to be stopped, or that are about to
    run a deployment which can move only once the engine has it. Return the events, and whether another drain is only
    waited for. `seen` is what the engine runs; a drain whose time is over ends without it."""
    finished, waiting = [], False
    ending = drains.ending(tx)
    drained_workers = {worker.id: worker for worker in workers.everyone(tx, [drained.worker_id for drained in ending])}
    for drained in ending:
        remains = _remains(tx, drained_workers[drained.worker_id], drained.node_id, seen)
        if remains.ours and drained.force:
            continue
        if not drained.overdue and (not remains.is_settled or _is_any_apply_pending(tx, remains.ours)):
            waiting = True
            continue
        finished.append(_over(drained, remains, term))
    drains.note_over(tx, [event.worker_id for event in finished if event.worker_id])
    return finished, waiting


def _remains(tx: db.Transaction, worker: Worker, node_id: str | None, seen: Observation | None) -> Remains:
    ours = services.on_workers(tx, [worker.id])
    if node_id is None:
        return Remains(ours, {}, is_settled=True)
    if seen is None:
        return Remains(ours, {}, is_settled=False)
    node = seen.nodes.get(node_id)
    if node is None or not node.is_up:
        return Remains(ours, {}, is_settled=True)  # what a node that is down runs, nobody can say
    named = {service.current.swarm_service_id for service in ours if service.current}
    there = [occupant for occupant in occupants(seen, node_id) if occupant.service_id not in named]
    others = {occupant.name: occupant.containers for occupant in there}
    outside, is_known = _outside(tx, worker, occupants(seen, node_id))
    if outside:
        others["outside of Swarm"] = outside
    return Remains(ours, others, is_settled=is_known and not any(occupant.ending for occupant in there))


def _outside(tx: db.Transaction, worker: Worker, there: Iterable[Occupant]) -> tuple[int, bool]:
    """Return how many containers the agent counts beside those of the swarm, and whether it has counted since the last
    one of ours left."""
    outside = (worker.container_count or 0) - sum(occupant.running for occupant in there)
    if outside <= 0:
        return 0, True
    since, heard_at = worker.drain_requested_at, worker.last_heartbeat_at
    moved = [move.finished_at for move in migrations.off_since(tx, worker.id, since)] if since else []
    left_at = max([at for at in (since, *moved) if at], default=None)
    return outside, left_at is None or (heard_at is not None and heard_at - left_at > COUNTED)


def _over(drained: drains.Drained, remains: Remains, term: Term) -> Event:
    names = [service.spec.name for service in remains.ours]
    others = [named(name, count) for name, count in remains.others.items()]
    left = len(names) + sum(remains.others.values())
    stays = f"{left} container{'s' * (left != 1)} left, still running"
    reason = "it is empty" if not left else f"{'its deadline has passed: ' if drained.overdue else ''}{stays}"
    details = DrainEnd(left=left, services=names[:MOST_NAMES], overdue=drained.overdue, others=others[:MOST_NAMES])
    return Event(
        EventKind.DRAIN_FINISHED,
        drained.worker_id,
        drained.name,
        "monitor",
        reason=reason,
        details=details,
        term=term.number,
    )


def named(name: str, count: int) -> str:
    """Return a service that is not ours with its containers."""
    return name if count == 1 else f"{name} ({count})"


def _is_any_apply_pending(tx: db.Transaction, on_worker: Iterable[Service]) -> bool:
    return any(service.current and deployments.is_apply_pending(tx, service.current.id) for service in on_worker)
