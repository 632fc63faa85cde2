"""The leading monitor's story of migrations: which are called for, and one step of each that is under way.

What is called for and what has come of it is written in short transactions; the engine is asked between them. Whatever
is interrupted is taken up again from the rows, since each step begins with what the engine shows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event, Lease
from skyctl.domain.engine import Observation
from skyctl.domain.errors import EngineConflict, EngineRefused
from skyctl.domain.events import Approval, DrainEnd, EventKind, MigrationSummary
from skyctl.domain.workloads import (
    DeploymentStatus,
    Migration,
    MigrationState,
    ServiceStatus,
)
from skyctl.operations.monitor import migration_queue
from skyctl.operations.monitor.migration_queue import migration_event
from skyctl.operations.shared.context import Context, Engine
from skyctl.operations.shared.leadership import TTL
from skyctl.rules import migrations as rules
from skyctl.rules import retry, tasks
from skyctl.rules.migrations import Decision, Step
from skyctl.rules.tasks import DEPLOYMENT_LABEL
from skyctl.store import db, drains, events, leases, migration_pauses, migration_summaries, services
from skyctl.store import migrations as store

POLL_SECONDS = 0.3
ORPHAN_SECONDS = 1.0
SAID_NAMES = 100
CHANGED_MEANWHILE = "somebody else changed the service at the same moment"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one look gave: the events, and in how many seconds the next is due, if not at the next pass."""

    events: Sequence[Event]
    next_seconds: float | None


class Called(NamedTuple):
    """What a look finds: the events that were written of it, what there is to do, when, and when time alone calls for
    the next."""

    events: Sequence[Event]
    work: store.Work
    now: datetime
    is_paused: bool
    due_seconds: float | None


def reconcile_migrations(context: Context, lease: Lease) -> Progress:
    """Let each migration come one step further. Raises LostLead, DatabaseUnavailable, EngineUnavailable."""
    called = _call_for(context, lease)
    work = called.work
    queued = () if called.is_paused else work.queued
    if not (work.under_way or queued or work.orphans):
        return Progress(called.events, called.due_seconds)
    engine = context.engine()
    involved = [*work.under_way, *work.orphans]
    seen = engine.observe({each.swarm_service_id for each in involved if each.swarm_service_id})
    outcomes = [(each, _act(engine, each, seen, called.now)) for each in work.under_way]
    written = _write(context, lease, seen, outcomes, work.orphans)
    begun = migration_queue.start_queued(context, lease, seen.nodes)
    moved_on = bool(begun) or any(decision.step is not Step.WAIT for _, decision in outcomes)
    soon = [0.0] * moved_on + [POLL_SECONDS] * bool(work.under_way) + [ORPHAN_SECONDS] * bool(work.orphans)
    soon += [] if called.due_seconds is None else [called.due_seconds]
    return Progress([*called.events, *written, *begun], min(soon, default=None))


def note_engine(context: Context, lease: Lease, trouble: str | None) -> None:
    """Note why the engine cannot be asked, for whoever wonders; None where it can. Raises LostLead."""
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        leases.note_engine_trouble(tx, lease, trouble)


def _call_for(context: Context, lease: Lease) -> Called:
    """Bring the rows in line with what workers, drains and people call for."""
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        called = store.call_for(tx)
        released, cancelled = store.release_held(tx), store.cancel_no_longer_called_for(tx)
        store.requeue(tx, context.migrations.attempts)
        written = events.append(
            tx,
            *(migration_event(each, EventKind[f"MIGRATION_{each.state.name}"], lease, each.reason) for each in called),
            *_asked(called, lease),
            *(migration_event(each, EventKind.MIGRATION_QUEUED, lease, "no longer held") for each in released),
            *(migration_event(each, EventKind.MIGRATION_CANCELLED, lease, each.reason) for each in cancelled),
            *_over(tx, lease),
            *(_summed_up(each, lease) for each in migration_summaries.sum_up(tx)),
        )
        work, paused = store.work(tx, migration_queue.MOST_QUEUED), migration_pauses.current(tx) is not None
        times = (store.next_due_seconds(tx), drains.next_deadline_seconds(tx), migration_pauses.seconds_left(tx))
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
            EventKind.APPROVAL_REQUIRED,
            worker_id,
            those[0].source_worker_name,
            "monitor",
            term=lease.term,
            reason=f"{len(those)} container{'s' * (len(those) != 1)} to be moved only when approved",
            details=Approval(count=len(those), services=sorted(each.service_name for each in those)[:SAID_NAMES]),
        )
        for worker_id, those in waiting.items()
    ]


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
        details = DrainEnd(left=len(said), services=said[:SAID_NAMES], overdue=drained.overdue)
        ended.append(
            Event(
                EventKind.DRAIN_FINISHED,
                drained.worker_id,
                drained.name,
                "monitor",
                reason=reason,
                details=details,
                term=lease.term,
            )
        )
    drains.note_over(tx, [event.worker_id for event in ended if event.worker_id])
    return ended


def _summed_up(summary: migration_summaries.Summary, lease: Lease) -> Event:
    counts = {state: len(those) for state, those in summary.by_state.items()}
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    details = MigrationSummary(
        cause=summary.cause.value,
        counts=counts,
        services={state: sorted(those)[:SAID_NAMES] for state, those in summary.by_state.items()},
    )
    return Event(
        EventKind.MIGRATIONS_FINISHED,
        summary.worker_id,
        summary.worker_name,
        "monitor",
        reason=said,
        details=details,
        term=lease.term,
    )


def _act(engine: Engine, migration: Migration, seen: Observation, now: datetime) -> Decision:
    """Decide about a migration that is under way, and ask the engine for it; what came of it."""
    overdue = rules.is_overdue(migration.deadline_at, now) or migration.cancelled_by is not None
    service_id, target = migration.swarm_service_id or "", migration.target_node_id
    if target is None and service_id in seen.services:
        decision = Decision(Step.ROLL_BACK, "its target has left the swarm")
    else:
        pins = rules.Pins(migration.source_node_id, target or "", str(migration.target_deployment_id))
        decision = rules.decide(migration.state, seen, service_id, pins, overdue=overdue)
    node: str | None = target
    if decision.step is Step.MOVE:
        deployment, then = migration.target_deployment_id, Decision(Step.VERIFY)
    elif decision.step is Step.ROLL_BACK:
        node, deployment = migration.source_node_id, migration.source_deployment_id
        then = Decision(Step.FAIL, decision.reason)
    else:
        return decision
    if node is None:  # the source has left the swarm: there is nothing to go back to
        return then
    try:
        engine.move(service_id, seen.services[service_id].version, node, {DEPLOYMENT_LABEL: str(deployment)})
    except EngineConflict:
        return Decision(Step.WAIT, CHANGED_MEANWHILE)
    except EngineRefused as error:
        return Decision(Step.FAIL, error.message)
    return then


def _write(
    context: Context,
    lease: Lease,
    seen: Observation,
    outcomes: Sequence[tuple[Migration, Decision]],
    orphans: Sequence[Migration],
) -> list[Event]:
    """Write down what came of the steps."""
    if not outcomes and not orphans:
        return []
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        told = [_note(tx, context, lease, migration, decision) for migration, decision in outcomes]
        store.note_reasons(tx, [(each, outcome.reason) for each, outcome in outcomes if outcome.step is Step.WAIT])
        told += [_note_orphan_stopped(tx, lease, each, seen) for each in orphans]
        return events.append(tx, *(event for event in told if event))


def _note(tx: db.Transaction, context: Context, lease: Lease, migration: Migration, decision: Decision) -> Event | None:
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
            last = decision.step is Step.GIVE_UP or migration.attempts >= context.migrations.attempts
            pause = None if last else retry.pause(migration.attempts)
            if store.fail(tx, migration, decision.reason, pause):
                _undo(tx, migration)
                return migration_event(migration, EventKind.MIGRATION_FAILED, lease, decision.reason, final=last)
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
    return migration_event(
        migration, EventKind.MIGRATION_COMPLETED, lease, f"it runs on {migration.target_worker_name}; {said}"
    )


def _end(tx: db.Transaction, lease: Lease, migration: Migration, state: MigrationState, reason: str) -> Event | None:
    if not store.change(tx, migration, state, reason=reason):
        return None
    _undo(tx, migration)
    return migration_event(migration, EventKind[f"MIGRATION_{state.name}"], lease, reason)


def _undo(tx: db.Transaction, migration: Migration) -> None:
    if migration.target_deployment_id:
        services.set_deployment(tx, migration.target_deployment_id, DeploymentStatus.ROLLED_BACK)


def _note_orphan_stopped(tx: db.Transaction, lease: Lease, migration: Migration, seen: Observation) -> Event | None:
    """Where the worker has returned, note that the engine has stopped the old container."""
    service, node = seen.services.get(migration.swarm_service_id or ""), seen.nodes.get(migration.source_node_id or "")
    if service and node and not (node.is_up and tasks.has_stopped(service, node.id)):
        return None
    store.note_source_stopped(tx, migration.id)
    return migration_event(
        migration,
        EventKind.GHOST_STOPPED,
        lease,
        f"{migration.source_worker_name} is back, its old container has stopped",
    )
