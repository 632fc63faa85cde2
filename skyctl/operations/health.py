"""The monitor's story: from the facts about every worker to its status, each change with its event."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from skyctl.model import Event, Worker
from skyctl.operations.world import World
from skyctl.rules import health
from skyctl.store import db, events, monitors, workers


@dataclass(frozen=True, slots=True)
class Pass:
    """What one look at every worker gave: the changes, and in how many seconds the next worker can run out of time."""

    changes: tuple[Event, ...]
    next_deadline_seconds: float | None


def check(world: World, holder: str, lease: timedelta) -> Pass:
    """Look at every worker once and change the statuses that the facts no longer call for. Raises DatabaseUnavailable."""
    with world.db.transaction() as tx:
        now = db.now(tx)
        suspects = workers.suspects(tx, world.limits, now)
    changes = [event for worker in suspects if (event := _conclude(world, worker, now))]
    with world.db.transaction() as tx:
        monitors.note_pass(tx, holder, lease)
        oldest, now = workers.silent_next_at(tx), db.now(tx)
    deadline = (oldest + world.limits.heartbeat_timeout - now).total_seconds() if oldest else None
    return Pass(tuple(changes), deadline)


def _conclude(world: World, worker: Worker, now: datetime) -> Event | None:
    """Change one status, with its event; None where the rule or somebody who was first says that there is no change."""
    verdict = health.assess(worker, now, world.limits)
    if verdict.status is worker.status:
        return None
    event = Event("status_changed", worker.id, worker.name, "monitor", worker.status, verdict.status, verdict.reason)
    with world.db.transaction() as tx:
        if not workers.change_status(tx, worker.id, worker.status, verdict.status):
            return None
        events.append(tx, event)
    return event
