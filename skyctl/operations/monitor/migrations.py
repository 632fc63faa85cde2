"""Advance migrations: find which are called for, and take one step of each that is under way.

What is called for and what came of a step is written in short transactions; the engine is asked between them. Whatever
is interrupted is taken up again from the rows, since each step begins with what the engine shows.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event
from skyctl.domain.engine import EngineService, Observation
from skyctl.domain.errors import EngineConflict, EngineRefused
from skyctl.domain.event_details import Approval, MigrationSummary
from skyctl.domain.events import EventKind
from skyctl.domain.states import DeploymentStatus, MigrationState, ServiceStatus
from skyctl.domain.workloads import Migration
from skyctl.operations.monitor import drains, evictions, exclusions, migration_queue, orders, rescheduling
from skyctl.operations.monitor.exclusions import is_overdue
from skyctl.operations.monitor.migration_queue import migration_event
from skyctl.operations.shared import image_volumes
from skyctl.operations.shared.leadership import Term
from skyctl.rules import migrations as rules
from skyctl.rules import rescheduling as rescheduled
from skyctl.rules import retry, tasks
from skyctl.rules.migrations import Decision, Step
from skyctl.rules.services import NOT_OURS, is_ours
from skyctl.rules.tasks import DEPLOYMENT_LABEL
from skyctl.store import db, deployments, events, migration_pauses, migration_summaries, owner_specs, services
from skyctl.store import drains as stored_drains
from skyctl.store import migrations as store
from skyctl.store.owner_specs import OwnerSpec

POLL_SECONDS = 0.1
WATCH_SECONDS = 1.0  # where the swarm acts, and nothing is ordered
MOST_NAMES = 100


class Waiting(NamedTuple):
    """Migrations that wait for the engine, as they were at a time of the database, and in how many seconds time alone
    calls for a step."""

    migrations: Sequence[Migration]
    at: datetime
    due_seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The events of one step of all migrations, and in how many seconds the next is due, if not at the next pass; what
    is waited for, where nothing else is to be done until then."""

    events: Sequence[Event]
    next_seconds: float | None
    waiting: Waiting | None = None


class Agenda(NamedTuple):
    """The work to be done: the events of the migrations that became called for, or no longer are; the work; the
    services in which something of ours is; the nodes to be cleared of what runs everywhere; the database's time;
    whether migrations are paused; in how many seconds time alone calls for the next step."""

    events: Sequence[Event]
    work: store.Work
    changed: Sequence[OwnerSpec]
    to_clear: Sequence[str]
    now: datetime
    is_paused: bool
    due_seconds: float | None


def reconcile_migrations(term: Term, *, looks: bool = True) -> Progress:
    """Advance each migration by one step. `looks`: whether the engine is also asked what it has on nodes that are to be
    left; without that no migration off these becomes called for, and no drain ends.

    Raises LostLead, DatabaseUnavailable, EngineUnavailable.
    """
    seen = drains.look(term) if looks else drains.Look()
    agenda = _call_for(term, seen)
    if seen.trouble:
        raise seen.trouble
    work = agenda.work
    drains.clear(term, agenda.to_clear)
    ours = [migration for migration in work.under_way if not migration.is_left_to_swarm]
    moving = {migration.swarm_service_id for migration in ours}
    queued = () if agenda.is_paused else work.queued
    if not (work.under_way or queued or work.orphans):
        is_any_kept = orders.give_back(term, agenda.changed, moving)
        return Progress(agenda.events, POLL_SECONDS if is_any_kept else agenda.due_seconds)
    involved = [*work.under_way, *work.orphans]
    observation = term.observe({migration.swarm_service_id for migration in involved if migration.swarm_service_id})
    if len(work.under_way) > len(ours):
        with term.reading() as tx:
            observation = image_volumes.known(tx, observation)
    outcomes = [(migration, _act(term, migration, observation, agenda.now)) for migration in work.under_way]
    written = _write(term, observation, outcomes, work.orphans)
    ended = sum(decision.step not in (Step.WAIT, Step.VERIFY) for _, decision in outcomes)
    is_any_free = len(ours) - ended < term.context.migrations.at_once
    started = _start(term, agenda.now) if queued and is_any_free else []
    # What has advanced comes first: containers wait for the next step, and no owner for what is his.
    is_any_kept = not (ended or started) and orders.give_back(term, agenda.changed, moving)
    watched = len(work.under_way) > len(ours) or bool(work.orphans)
    soon = [0.0] * bool(ended) + [POLL_SECONDS] * bool(ours or started) + [WATCH_SECONDS] * watched
    soon += [POLL_SECONDS] * is_any_kept + ([] if agenda.due_seconds is None else [agenda.due_seconds])
    due_seconds = math.inf if agenda.due_seconds is None else agenda.due_seconds
    waiting = None if ended or started or is_any_kept or not ours else Waiting(ours, agenda.now, due_seconds)
    return Progress([*agenda.events, *written, *started], min(soon, default=None), waiting)


def calls_for_a_step(term: Term, waiting: Waiting) -> bool:
    """Tell whether the engine shows by now what one of the migrations has waited for, or says something else of it;
    nothing but that is asked.

    Raises EngineUnavailable.
    """
    observation = term.observe({each.swarm_service_id for each in waiting.migrations if each.swarm_service_id})
    decided = ((each, _decide(term, each, observation, waiting.at)) for each in waiting.migrations)
    return any(decision.step is not Step.WAIT or decision.reason != each.reason for each, decision in decided)


def _start(term: Term, now: datetime) -> list[Event]:
    """Start queued migrations, and order at once what the engine is to do for them."""
    started = migration_queue.start_queued(term)
    ordered = [(migration, _act(term, migration, started.observation, now)) for migration in started.migrations]
    return [*started.events, *_write(term, started.observation, ordered, ())]


def _call_for(term: Term, seen: drains.Look) -> Agenda:
    """Bring the rows in line with what workers, drains and people call for."""
    with term.recording() as tx:
        begun = drains.adopt(tx, term)
        called = [*evictions.evict(tx), *rescheduling.call_for(tx, term, seen)]
        released, cancelled = store.release_held(tx), evictions.call_off(tx)
        store.requeue(tx, term.context.migrations.attempts)
        excluding = exclusions.call_for(tx, seen)
        ends = drains.finish(tx, term, seen)
        written = events.append(
            tx,
            *(
                migration_event(migration, _kind_of_called(migration), term, migration.reason)
                for migration in [*called, *excluding]
            ),
            *_approvals(called, term),
            *(migration_event(migration, EventKind.MIGRATION_QUEUED, term, "no longer held") for migration in released),
            *(
                migration_event(migration, EventKind.MIGRATION_CANCELLED, term, migration.reason)
                for migration in cancelled
            ),
            *begun,
            *ends.events,
            *(_summary_event(summary, term) for summary in migration_summaries.sum_up(tx)),
        )
        rescheduling.note_seen(tx, seen)
        work, paused = store.work(tx, migration_queue.MOST_QUEUED), migration_pauses.current(tx) is not None
        times = (store.next_due_seconds(tx), stored_drains.next_deadline_seconds(tx), migration_pauses.seconds_left(tx))
        due = [seconds for seconds in times if seconds is not None]
        due += [drains.LOOK_SECONDS] * ends.is_any_waited_for
        changed = owner_specs.changed(tx)
        return Agenda(written, work, changed, ends.to_clear, db.now(tx), paused, max(0.0, min(due)) if due else None)


def _kind_of_called(migration: Migration) -> EventKind:
    return EventKind.MIGRATION_STARTED if migration.is_left_to_swarm else EventKind[f"MIGRATION_{migration.state.name}"]


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
    decision = _decide(term, migration, observation, now)
    service = observation.services.get(migration.swarm_service_id or "")
    if service is None or decision.step not in (Step.MOVE, Step.ROLL_BACK):
        return decision
    try:
        if migration.service_id is None:
            exclusions.order(term, migration, service, decision.step)
        else:
            _order(term, migration, service, observation, decision.step)
    except EngineConflict:
        return Decision(Step.WAIT, exclusions.CHANGED_MEANWHILE)
    except EngineRefused as error:
        return Decision(Step.FAIL, error.message)
    return Decision(Step.VERIFY) if decision.step is Step.MOVE else Decision(Step.FAIL, decision.reason)


def _decide(term: Term, migration: Migration, observation: Observation, now: datetime) -> Decision:
    if migration.is_left_to_swarm:
        return rescheduling.watch(term, migration, observation, now)
    if migration.service_id is None:
        return exclusions.decide(term, migration, observation, now)
    service_id, target = migration.swarm_service_id or "", migration.target_node_id
    service = observation.services.get(service_id)
    overdue = is_overdue(term, migration, service, now)
    if service and not is_ours(service.labels, migration.service_id):
        return Decision(Step.GIVE_UP, NOT_OURS)
    if service and target is None:
        return Decision(Step.ROLL_BACK, "its target has left the swarm")
    pins = rules.Pins(migration.source_node_id, target or "", str(migration.source_deployment_id))
    is_stuck = rules.is_stuck(service, migration.reason, migration.updated_at, now)
    return rules.decide(migration.state, observation, service_id, pins, overdue=overdue, is_stuck=is_stuck)


def _order(term: Term, migration: Migration, service: EngineService, observation: Observation, step: Step) -> None:
    """Pin a service to where it is to go, or back to where it was."""
    node_id, deployment = migration.target_node_id, migration.target_deployment_id
    if step is Step.ROLL_BACK:
        source = observation.nodes.get(migration.source_node_id or "")
        node_id = source.id if source and rules.may_go_back(service, source) else None
        deployment = migration.source_deployment_id
    if node_id is not None:  # else the source is lost: there is nothing to go back to
        orders.pin(term, service, node_id, {DEPLOYMENT_LABEL: str(deployment)})


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
        left = [each for each in outcomes if _has_left(*each)]
        noted = [_note(tx, term, *each) for each in outcomes if not _has_left(*each)]
        waiting = [(migration, decision.reason) for migration, decision in outcomes if decision.step is Step.WAIT]
        store.note_reasons(tx, waiting)
        stopped = [migration for migration in orphans if _has_stopped(migration, observation)]
        store.note_sources_stopped(tx, [migration.id for migration in stopped])
        return events.append(
            tx,
            *exclusions.complete(tx, term, left, observation),
            *(event for event in noted if event),
            *(migration_event(each, EventKind.GHOST_STOPPED, term, _is_back(each)) for each in stopped),
        )


def _has_left(migration: Migration, decision: Decision) -> bool:
    return migration.service_id is None and decision.step is Step.COMPLETE


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
            counts = not rules.is_of_no_account(migration, decision.reason)
            is_late = counts and migration.attempts >= term.context.migrations.attempts
            is_last = decision.step is Step.GIVE_UP or is_late
            pause = None if is_last else retry.pause(migration.attempts)
            if store.fail(tx, migration, decision.reason, pause, counts=counts):
                _undo(tx, migration)
                return migration_event(migration, EventKind.MIGRATION_FAILED, term, decision.reason, final=is_last)
    return None


def _complete(tx: db.Transaction, term: Term, migration: Migration, decision: Decision) -> Event | None:
    """Make the new deployment the service's current one."""
    stopped = {"source_stopped_at": db.now(tx)} if decision.source_stopped else {}
    source, target = migration.source_deployment_id, migration.target_deployment_id
    if migration.service_id is None or target is None:
        return None
    if not store.change(tx, migration, MigrationState.COMPLETED, reason="", **stopped):
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


def _has_stopped(migration: Migration, observation: Observation) -> bool:
    """Tell whether the engine has stopped the old container: the worker has returned, and it has."""
    service = observation.services.get(migration.swarm_service_id or "")
    node = observation.nodes.get(migration.source_node_id or "")
    has_stopped = tasks.has_stopped if migration.service_id else rescheduled.has_stopped
    return not (service and node) or (node.is_up and has_stopped(service, node.id))


def _is_back(migration: Migration) -> str:
    return f"{migration.source_worker_name} is back, its old container has stopped"
