"""Advance migrations: find which are called for, and take one step of each that is under way.

What is called for and what came of a step is written in short transactions; the engine is asked between them. Whatever
is interrupted is taken up again from the rows, since each step begins with what the engine shows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event
from skyctl.domain.engine import Observation
from skyctl.domain.errors import EngineConflict, EngineRefused
from skyctl.domain.events import Approval, EventKind, MigrationSummary
from skyctl.domain.states import DeploymentStatus, MigrationState, ServiceStatus
from skyctl.domain.workloads import Migration
from skyctl.operations.monitor import drains, evictions, migration_queue
from skyctl.operations.monitor.migration_queue import migration_event
from skyctl.operations.shared.leadership import Term
from skyctl.rules import migrations as rules
from skyctl.rules import retry, tasks
from skyctl.rules.migrations import Decision, Step
from skyctl.rules.services import NOT_OURS, is_ours
from skyctl.rules.tasks import DEPLOYMENT_LABEL
from skyctl.store import db, deployments, events, leases, migration_pauses, migration_summaries, services
from skyctl.store import drains as stored_drains
from skyctl.store import migrations as store

POLL_SECONDS = 0.3
ORPHAN_SECONDS = 1.0
MOST_NAMES = 100
CHANGED_MEANWHILE = "somebody else changed the service at the same moment"


@dataclass(frozen=True, slots=True)
class Progress:
    """The events of one step of all migrations, and in how many seconds the next is due, if not at the next pass."""

    events: Sequence[Event]
    next_seconds: float | None


class Agenda(NamedTuple):
    """The work to be done: the events of the migrations that became called for, or no longer are; the work; the
    database's time; whether migrations are paused; in how many seconds time alone calls for the next step."""

    events: Sequence[Event]
    work: store.Work
    now: datetime
    is_paused: bool
    due_seconds: float | None


def reconcile_migrations(term: Term) -> Progress:
    """Advance each migration by one step. Raises LostLead, DatabaseUnavailable, EngineUnavailable."""
    seen = drains.look(term)
    agenda = _call_for(term, seen)
    if seen.trouble:
        raise seen.trouble
    work = agenda.work
    queued = () if agenda.is_paused else work.queued
    if not (work.under_way or queued or work.orphans):
        return Progress(agenda.events, agenda.due_seconds)
    involved = [*work.under_way, *work.orphans]
    observation = term.observe({migration.swarm_service_id for migration in involved if migration.swarm_service_id})
    outcomes = [(migration, _act(term, migration, observation, agenda.now)) for migration in work.under_way]
    written = _write(term, observation, outcomes, work.orphans)
    started = migration_queue.start_queued(term, observation.nodes)
    has_advanced = bool(started) or any(decision.step is not Step.WAIT for _, decision in outcomes)
    soon = [0.0] * has_advanced + [POLL_SECONDS] * bool(work.under_way) + [ORPHAN_SECONDS] * bool(work.orphans)
    soon += [] if agenda.due_seconds is None else [agenda.due_seconds]
    return Progress([*agenda.events, *written, *started], min(soon, default=None))


def note_engine(term: Term, trouble: str | None) -> None:
    """Note why the engine cannot be asked, for people to see; None where it can. Raises LostLead."""
    with term.writing() as tx:
        leases.note_engine_trouble(tx, term.lease, trouble)


def _call_for(term: Term, seen: drains.Look) -> Agenda:
    """Bring the rows in line with what workers, drains and people call for."""
    with term.recording() as tx:
        begun = drains.adopt(tx, term)
        called = evictions.evict(tx)
        released, cancelled = store.release_held(tx), evictions.call_off(tx)
        store.requeue(tx, term.context.migrations.attempts)
        drained, is_any_waited_for = drains.finish(tx, term, seen)
        written = events.append(
            tx,
            *(
                migration_event(migration, EventKind[f"MIGRATION_{migration.state.name}"], term, migration.reason)
                for migration in called
            ),
            *_approvals(called, term),
            *(migration_event(migration, EventKind.MIGRATION_QUEUED, term, "no longer held") for migration in released),
            *(
                migration_event(migration, EventKind.MIGRATION_CANCELLED, term, migration.reason)
                for migration in cancelled
            ),
            *begun,
            *drained,
            *(_summary_event(summary, term) for summary in migration_summaries.sum_up(tx)),
        )
        work, paused = store.work(tx, migration_queue.MOST_QUEUED), migration_pauses.current(tx) is not None
        times = (store.next_due_seconds(tx), stored_drains.next_deadline_seconds(tx), migration_pauses.seconds_left(tx))
        due = [seconds for seconds in times if seconds is not None]
        due += [drains.LOOK_SECONDS] * is_any_waited_for
        return Agenda(written, work, db.now(tx), paused, max(0.0, min(due)) if due else None)


def _approvals(called: Iterable[Migration], term: Term) -> list[Event]:
    """Return one event a worker, of the containers that may move only once their organization has approved."""
    waiting: dict[UUID | None, list[Migration]] = {}
    for migration in called:
        if migration.state is MigrationState.AWAITING_APPROVAL:
            waiting.setdefault(migration.source_worker_id, []).append(migration)
    return [
        Event(
            EventKind.APPROVAL_REQUIRED,
            worker_id,
            migrations[0].source_worker_name,
            "monitor",
            term=term.number,
            reason=f"{len(migrations)} container{'s' * (len(migrations) != 1)} to be moved only when approved",
            details=Approval(
                count=len(migrations), services=sorted(migration.service_name for migration in migrations)[:MOST_NAMES]
            ),
        )
        for worker_id, migrations in waiting.items()
    ]


def _summary_event(summary: migration_summaries.Summary, term: Term) -> Event:
    counts = {state: len(names) for state, names in summary.by_state.items()}
    details = MigrationSummary(
        cause=summary.cause.value,
        counts=counts,
        services={state: sorted(names)[:MOST_NAMES] for state, names in summary.by_state.items()},
    )
    return Event(
        EventKind.MIGRATIONS_FINISHED,
        summary.worker_id,
        summary.worker_name,
        "monitor",
        reason=", ".join(f"{count} {state}" for state, count in sorted(counts.items())),
        details=details,
        term=term.number,
    )


def _act(term: Term, migration: Migration, observation: Observation, now: datetime) -> Decision:
    """Decide about a migration that is under way, and order the engine accordingly; return what came of it."""
    overdue = rules.is_overdue(migration.deadline_at, now) or migration.cancelled_by is not None
    service_id, target = migration.swarm_service_id or "", migration.target_node_id
    service = observation.services.get(service_id)
    if service and not is_ours(service.labels, migration.service_id):
        return Decision(Step.GIVE_UP, NOT_OURS)
    if target is None and service_id in observation.services:
        decision = Decision(Step.ROLL_BACK, "its target has left the swarm")
    else:
        pins = rules.Pins(migration.source_node_id, target or "", str(migration.target_deployment_id))
        decision = rules.decide(migration.state, observation, service_id, pins, overdue=overdue)
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
    version, labels = observation.services[service_id].version, {DEPLOYMENT_LABEL: str(deployment)}
    try:
        term.engine().move(service_id, version, node, labels)
    except EngineConflict:
        return Decision(Step.WAIT, CHANGED_MEANWHILE)
    except EngineRefused as error:
        return Decision(Step.FAIL, error.message)
    return then


def _write(
    term: Term,
    observation: Observation,
    outcomes: Sequence[tuple[Migration, Decision]],
    orphans: Sequence[Migration],
) -> list[Event]:
    """Write down what came of the steps."""
    if not outcomes and not orphans:
        return []
    with term.recording() as tx:
        noted = [_note(tx, term, migration, decision) for migration, decision in outcomes]
        waiting = [(migration, decision.reason) for migration, decision in outcomes if decision.step is Step.WAIT]
        store.note_reasons(tx, waiting)
        noted += [_note_orphan_stopped(tx, term, migration, observation) for migration in orphans]
        return events.append(tx, *(event for event in noted if event))


def _note(tx: db.Transaction, term: Term, migration: Migration, decision: Decision) -> Event | None:
    match decision.step:
        case Step.VERIFY:
            store.change(tx, migration, MigrationState.VERIFYING)
        case Step.COMPLETE:
            return _complete(tx, term, migration, decision)
        case Step.CANCEL:
            return _end(tx, term, migration, MigrationState.CANCELLED, decision.reason)
        case Step.FAIL if migration.cancelled_by:
            return _end(tx, term, migration, MigrationState.CANCELLED, f"cancelled by {migration.cancelled_by}")
        case Step.FAIL | Step.GIVE_UP:
            is_last = decision.step is Step.GIVE_UP or migration.attempts >= term.context.migrations.attempts
            pause = None if is_last else retry.pause(migration.attempts)
            if store.fail(tx, migration, decision.reason, pause):
                _undo(tx, migration)
                return migration_event(migration, EventKind.MIGRATION_FAILED, term, decision.reason, final=is_last)
    return None


def _complete(tx: db.Transaction, term: Term, migration: Migration, decision: Decision) -> Event | None:
    """Make the new deployment the service's current one."""
    stopped = {"source_stopped_at": db.now(tx)} if decision.source_stopped else {}
    source, target = migration.source_deployment_id, migration.target_deployment_id
    if not store.change(tx, migration, MigrationState.COMPLETED, reason="", **stopped) or target is None:
        return None
    deployments.set_status(tx, target, DeploymentStatus.RUNNING, container_id=decision.container_id)
    if source:
        deployments.set_status(tx, source, DeploymentStatus.STOPPED)
    services.make_current(tx, migration.service_id, target, ServiceStatus.RUNNING)
    old = "has stopped" if decision.source_stopped else "stops when its worker returns"
    reason = f"it runs on {migration.target_worker_name}; the old container {old}"
    return migration_event(migration, EventKind.MIGRATION_COMPLETED, term, reason)


def _end(tx: db.Transaction, term: Term, migration: Migration, state: MigrationState, reason: str) -> Event | None:
    if not store.change(tx, migration, state, reason=reason):
        return None
    _undo(tx, migration)
    return migration_event(migration, EventKind[f"MIGRATION_{state.name}"], term, reason)


def _undo(tx: db.Transaction, migration: Migration) -> None:
    if migration.target_deployment_id:
        deployments.set_status(tx, migration.target_deployment_id, DeploymentStatus.ROLLED_BACK)


def _note_orphan_stopped(
    tx: db.Transaction, term: Term, migration: Migration, observation: Observation
) -> Event | None:
    """Note that the engine has stopped the old container, where the worker has returned and it has."""
    service = observation.services.get(migration.swarm_service_id or "")
    node = observation.nodes.get(migration.source_node_id or "")
    if service and node and not (node.is_up and tasks.has_stopped(service, node.id)):
        return None
    store.note_source_stopped(tx, migration.id)
    reason = f"{migration.source_worker_name} is back, its old container has stopped"
    return migration_event(migration, EventKind.GHOST_STOPPED, term, reason)
