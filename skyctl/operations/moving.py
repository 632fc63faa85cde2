"""The leading monitor's story of migrations: which are called for, and one step of each that is under way.

What is called for and what has come of it is written in short transactions; the engine is asked between them. Whatever is
interrupted is taken up again from the rows, since each step begins with what the engine shows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.engine import Observation
from skyctl.errors import EngineConflict, EngineRefused
from skyctl.model import Event, Lease
from skyctl.operations import placing
from skyctl.operations.leadership import TTL
from skyctl.operations.world import Engine, World
from skyctl.rules import migrations as rules
from skyctl.rules import retry, tasks
from skyctl.rules.migrations import Decision, Step
from skyctl.rules.services import DEPLOYMENT_LABEL
from skyctl.store import db, drains, events, monitors, pauses, services
from skyctl.store import migrations as store
from skyctl.workload import DeploymentStatus, Migration, MigrationState, Placement, Refusal, ServiceStatus

MOST_QUEUED = 5_000
POLL_SECONDS = 0.3
GHOST_SECONDS = 1.0
SAID_NAMES = 100
CHANGED_MEANWHILE = "somebody else changed the service at the same moment"
ITS_TURN = "waits for its turn"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one look gave: the events, and in how many seconds the next is due, if not at the next pass."""

    events: Sequence[Event]
    next_seconds: float | None


class Called(NamedTuple):
    """What a look finds: the events that were written of it, what there is to do, when, and when time alone calls for the next."""

    events: Sequence[Event]
    work: store.Work
    now: datetime
    is_paused: bool
    due_seconds: float | None


def advance(world: World, lease: Lease) -> Progress:
    """Let each migration come one step further. Raises LostLead, DatabaseUnavailable, EngineUnavailable."""
    called = _call_for(world, lease)
    work = called.work
    queued = () if called.is_paused else work.queued
    if not (work.under_way or queued or work.ghosts):
        return Progress(called.events, called.due_seconds)
    engine = world.engine()
    involved = [*work.under_way, *work.ghosts]
    seen = engine.observe({each.swarm_service_id for each in involved if each.swarm_service_id})
    outcomes = [(each, _act(engine, each, seen, called.now)) for each in work.under_way]
    written, begun = _write(world, lease, seen, outcomes, work.ghosts, is_paused=called.is_paused)
    moved_on = begun or any(decision.step is not Step.WAIT for _, decision in outcomes)
    soon = [0.0] * moved_on + [POLL_SECONDS] * bool(work.under_way) + [GHOST_SECONDS] * bool(work.ghosts)
    soon += [] if called.due_seconds is None else [called.due_seconds]
    return Progress([*called.events, *written], min(soon, default=None))


def note_engine(world: World, lease: Lease, trouble: str | None) -> None:
    """Note why the engine cannot be asked, for whoever wonders; None where it can. Raises LostLead."""
    with world.db.transaction() as tx:
        monitors.hold(tx, lease, TTL)
        monitors.note_engine_trouble(tx, lease, trouble)


def _call_for(world: World, lease: Lease) -> Called:
    """Bring the rows in line with what workers, drains and people call for."""
    with world.db.transaction() as tx:
        monitors.hold(tx, lease, TTL)
        events.lock(tx)
        called = store.call_for(tx)
        released, cancelled = store.release_held(tx), store.cancel_no_longer_called_for(tx)
        store.requeue(tx, world.limits.migration_attempts)
        written = events.append(
            tx,
            *(_of(each, f"migration_{each.state.value}", lease, each.reason) for each in called),
            *_asked(called, lease),
            *(_of(each, "migration_queued", lease, "no longer held") for each in released),
            *(_of(each, "migration_cancelled", lease, each.reason) for each in cancelled),
            *_over(tx, lease),
            *(_summed_up(each, lease) for each in store.sum_up(tx)),
        )
        work, paused = store.work(tx, MOST_QUEUED), pauses.current(tx) is not None
        times = (store.next_due_seconds(tx), drains.next_deadline_seconds(tx), pauses.seconds_left(tx))
        due = [each for each in times if each is not None]
        return Called(written, work, db.now(tx), paused, max(0.0, min(due)) if due else None)


def _asked(called: Iterable[Migration], lease: Lease) -> list[Event]:
    """One event a worker, of which containers its organization wants to be asked about."""
    waiting: dict[UUID | None, list[Migration]] = {}
    for each in called:
        if each.state is MigrationState.AWAITING_APPROVAL:
            waiting.setdefault(each.source_worker_id, []).append(each)
    return [
        Event(
            "approval_required", worker_id, those[0].source_worker_name, "monitor", term=lease.term,
            reason=f"{len(those)} container{'s' * (len(those) != 1)} to be moved only when approved",
            details={"count": len(those), "services": sorted(each.service_name for each in those)[:SAID_NAMES]},
        )
        for worker_id, those in waiting.items()
    ]  # fmt: skip


def _over(tx: db.Transaction, lease: Lease) -> list[Event]:
    """Note the drains that are over, but those whose last containers are still to be stopped."""
    ended = []
    for drained in drains.ending(tx):
        left = services.on_workers(tx, [drained.worker_id])
        if left and drained.force:
            continue
        said = [service.spec.name for service in left]
        stays = f"{len(said)} container{'s' * (len(said) != 1)} left, still running"
        reason = "it is empty" if not said else f"{'its deadline has passed: ' if drained.overdue else ''}{stays}"
        details = {"left": len(said), "services": said[:SAID_NAMES], "overdue": drained.overdue}
        ended.append(
            Event("drain_finished", drained.worker_id, drained.name, "monitor", reason=reason, details=details, term=lease.term)
        )  # fmt: skip
    drains.note_over(tx, [event.worker_id for event in ended if event.worker_id])
    return ended


def _summed_up(summary: store.Summary, lease: Lease) -> Event:
    counts = {state: len(those) for state, those in summary.by_state.items()}
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    details = {
        "cause": summary.cause.value, "counts": counts,
        "services": {state: sorted(those)[:SAID_NAMES] for state, those in summary.by_state.items()},
    }  # fmt: skip
    return Event(
        "migrations_finished", summary.worker_id, summary.worker_name, "monitor", reason=said, details=details, term=lease.term
    )  # fmt: skip


def _act(engine: Engine, migration: Migration, seen: Observation, now: datetime) -> Decision:
    """Decide about a migration that is under way, and ask the engine for it; what came of it."""
    overdue = rules.is_overdue(migration.deadline_at, now) or migration.cancelled_by is not None
    service_id, target = migration.swarm_service_id or "", migration.target_node_id
    if target is None:
        return Decision(Step.FAIL, "its target has left the swarm")
    decision = rules.decide(migration.state, seen, service_id, migration.source_node_id, target, overdue=overdue)
    if decision.step is Step.MOVE:
        node, deployment, then = target, migration.target_deployment_id, Decision(Step.VERIFY)
    elif decision.step is Step.ROLL_BACK and migration.source_node_id:
        node, deployment = migration.source_node_id, migration.source_deployment_id
        then = Decision(Step.FAIL, decision.reason)
    else:
        return decision
    try:
        engine.move(service_id, seen.services[service_id].version, node, {DEPLOYMENT_LABEL: str(deployment)})
    except EngineConflict:
        return Decision(Step.WAIT, CHANGED_MEANWHILE)
    except EngineRefused as error:
        return Decision(Step.FAIL, error.message)
    return then


def _write(
    world: World, lease: Lease, seen: Observation, outcomes: Sequence[tuple[Migration, Decision]],
    ghosts: Sequence[Migration], *, is_paused: bool,
) -> tuple[list[Event], bool]:  # fmt: skip
    """Write down what came of the steps, and let as many more begin as may; the events, and whether any began."""
    with world.db.transaction() as tx:
        monitors.hold(tx, lease, TTL)
        events.lock(tx)
        told = [_note(tx, world, lease, migration, decision) for migration, decision in outcomes]
        store.note_reasons(tx, [(each, outcome.reason) for each, outcome in outcomes if outcome.step is Step.WAIT])
        told += [_note_ghost(tx, lease, each, seen) for each in ghosts]
        begun = [] if is_paused else _begin(tx, world, lease, seen)
        return events.append(tx, *(event for event in told if event), *begun), bool(begun)


def _note(tx: db.Transaction, world: World, lease: Lease, migration: Migration, decision: Decision) -> Event | None:
    match decision.step:
        case Step.VERIFY:
            store.change(tx, migration, MigrationState.VERIFYING)
        case Step.COMPLETE:
            return _complete(tx, lease, migration, decision)
        case Step.CANCEL:
            return _end(tx, lease, migration, MigrationState.CANCELLED, decision.reason)
        case Step.FAIL if migration.cancelled_by:
            return _end(tx, lease, migration, MigrationState.CANCELLED, f"cancelled by {migration.cancelled_by}")
        case Step.FAIL | Step.GIVE_UP:
            last = decision.step is Step.GIVE_UP or migration.attempts >= world.limits.migration_attempts
            pause = None if last else retry.pause(migration.attempts)
            if store.fail(tx, migration, decision.reason, pause):
                _undo(tx, migration)
                return _of(migration, "migration_failed", lease, decision.reason, final=last)
    return None


def _complete(tx: db.Transaction, lease: Lease, migration: Migration, decision: Decision) -> Event | None:
    """The new deployment is the service's from now on."""
    stopped = {"source_stopped_at": db.now(tx)} if decision.source_stopped else {}
    source, target = migration.source_deployment_id, migration.target_deployment_id
    if not store.change(tx, migration, MigrationState.COMPLETED, reason="", **stopped) or target is None:
        return None
    services.set_deployment(tx, target, DeploymentStatus.RUNNING, container_id=decision.container_id)
    if source:
        services.set_deployment(tx, source, DeploymentStatus.STOPPED)
    services.make_current(tx, migration.service_id, target, ServiceStatus.RUNNING)
    said = (
        "the old container has stopped"
        if decision.source_stopped
        else "the old container stops when its worker returns"
    )
    return _of(migration, "migration_completed", lease, f"it runs on {migration.target_worker_name}; {said}")


def _end(tx: db.Transaction, lease: Lease, migration: Migration, state: MigrationState, reason: str) -> Event | None:
    if not store.change(tx, migration, state, reason=reason):
        return None
    _undo(tx, migration)
    return _of(migration, f"migration_{state.value}", lease, reason)


def _undo(tx: db.Transaction, migration: Migration) -> None:
    if migration.target_deployment_id:
        services.set_deployment(tx, migration.target_deployment_id, DeploymentStatus.ROLLED_BACK)


def _note_ghost(tx: db.Transaction, lease: Lease, migration: Migration, seen: Observation) -> Event | None:
    """Where the worker has returned, note that the engine has stopped the old container."""
    service, node = seen.services.get(migration.swarm_service_id or ""), seen.nodes.get(migration.source_node_id or "")
    if service and node and not (node.is_up and tasks.has_stopped(service, node.id)):
        return None
    store.note_source_stopped(tx, migration.id)
    return _of(
        migration, "ghost_stopped", lease, f"{migration.source_worker_name} is back, its old container has stopped"
    )


def _begin(tx: db.Transaction, world: World, lease: Lease, seen: Observation) -> list[Event]:
    """Give the queued migrations their targets, and let as many begin as may run at once."""
    work = store.work(tx, MOST_QUEUED)
    free = world.limits.migrations_at_once - len(work.under_way)
    if free <= 0 or not work.queued:
        return []
    specs = {each.id: each.spec for each in services.fetch(tx, [each.service_id for each in work.queued])}
    waiting = [each for each in work.queued if each.service_id in specs]
    demands = [placing.demand(each.id, specs[each.service_id], each.source_worker_id, each.avoid) for each in waiting]
    places = placing.plan(tx, demands, seen.nodes, world.limits)
    turns = Turns(work.under_way, world.limits.migrations_into_one, drains.max_parallel(tx), free)
    begun, reasons = [], []
    for migration, place in zip(waiting, places, strict=True):
        if isinstance(place, Refusal):
            reasons.append((migration, place.reason))
        elif turns.take(migration.source_worker_id, place.worker_id):
            begun.append(_start(tx, world, lease, migration, place))
        else:
            reasons.append((migration, ITS_TURN))
    store.note_reasons(tx, reasons)
    return begun


class Turns:
    """Who may begin: so many at once, so many into one worker, and off one where somebody limited it."""

    def __init__(self, under_way: Sequence[Migration], into_one: int, off_one: dict[UUID, int], free: int) -> None:
        self._into = Counter(each.target_worker_id for each in under_way)
        self._off = Counter(each.source_worker_id for each in under_way)
        self._into_one, self._off_one, self._free = into_one, off_one, free

    def take(self, source: UUID | None, target: UUID) -> bool:
        """Whether one more may begin, which it then has."""
        limit = self._off_one.get(source, self._off[source] + 1) if source else self._off[source] + 1
        if self._free <= 0 or self._into[target] >= self._into_one or self._off[source] >= limit:
            return False
        self._free -= 1
        self._into[target] += 1
        self._off[source] += 1
        return True


def _start(tx: db.Transaction, world: World, lease: Lease, migration: Migration, place: Placement) -> Event:
    image = services.image_of(tx, migration.source_deployment_id)
    deployment = services.insert_deployment(
        tx, migration.service_id, place.worker_id, image, DeploymentStatus.DEPLOYING, migration.swarm_service_id
    )  # fmt: skip
    begun = store.begin(tx, migration, place.worker_id, deployment, world.limits.migration_timeout)
    return _of(begun, "migration_started", lease, f"to {begun.target_worker_name}: {place.reason}")


def _of(migration: Migration, kind: str, lease: Lease, reason: str, *, final: bool = False) -> Event:
    details = {
        "migrationId": str(migration.id), "serviceId": str(migration.service_id), "serviceName": migration.service_name,
        "organizationId": str(migration.organization_id), "cause": migration.cause.value, "attempt": migration.attempts,
        "targetWorkerId": str(migration.target_worker_id) if migration.target_worker_id else None,
        "targetWorkerName": migration.target_worker_name, **({"final": True} if final else {}),
    }  # fmt: skip
    told = f"{migration.service_name}: {reason}" if reason else migration.service_name
    return Event(
        kind, migration.source_worker_id, migration.source_worker_name, "monitor", reason=told, details=details, term=lease.term
    )  # fmt: skip
