"""Moves of what the swarm places by itself off the nodes of drained workers: which are called for, and their steps."""

from collections.abc import Sequence
from datetime import datetime

from skyctl.domain.cluster import Event
from skyctl.domain.engine import EngineService, Observation
from skyctl.domain.events import EventKind
from skyctl.domain.states import MigrationCause
from skyctl.domain.workloads import Migration
from skyctl.operations.monitor import orders
from skyctl.operations.monitor.drains import Look
from skyctl.operations.monitor.migration_queue import migration_event
from skyctl.operations.shared.leadership import Term
from skyctl.rules import exclusions as rules
from skyctl.rules import migrations as migration_rules
from skyctl.rules.migrations import Decision, Step
from skyctl.rules.tasks import makes_progress
from skyctl.store import db, exclusions, rescheduling

CHANGED_MEANWHILE = "somebody else changed the service at the same moment"


def call_for(tx: db.Transaction, seen: Look) -> list[Migration]:
    """Write down a migration for each service that the swarm placed on a drained worker's node and can place elsewhere;
    return the new ones."""
    leaving = []
    for worker_id, node_id in seen.drained.items():
        node = seen.nodes.get(node_id)
        if node is None or not (node.is_manager or node.availability != "active"):
            continue  # the swarm might put it there again
        there = [seen.services.get(service_id) for service_id in rules.leaves(seen.tasks.get(node_id, ()))]
        leaving += [
            exclusions.Leaving(service.id, service.name, worker_id)
            for service in there
            if service and rules.can_be_kept_off(service)
        ]
    return exclusions.insert(tx, leaving)


def decide(term: Term, migration: Migration, observation: Observation, now: datetime) -> Decision:
    """Decide about a migration that is under way."""
    service, node_id = observation.services.get(migration.swarm_service_id or ""), migration.source_node_id
    if node_id is None:
        return Decision(Step.CANCEL, "its worker has left the swarm")
    overdue = is_overdue(term, migration, service, now)
    is_stuck = migration_rules.is_stuck(service, migration.reason, migration.updated_at, now)
    node = observation.nodes.get(node_id)
    node_is_up = node is not None and node.is_up
    return rules.decide(migration.state, service, node_id, node_is_up=node_is_up, overdue=overdue, is_stuck=is_stuck)


def order(term: Term, migration: Migration, service: EngineService, step: Step) -> None:
    """Keep a service off the node that it is to leave, or no longer. Raises LostLead, EngineConflict, EngineRefused,
    EngineUnavailable."""
    node_id = migration.source_node_id or ""
    if step is Step.MOVE:
        orders.exclude(term, service, [node_id, *_avoided(term, migration, service)])
    else:
        orders.include(term, service, node_id)


def _avoided(term: Term, migration: Migration, service: EngineService) -> list[str]:
    """Return the nodes of other failed workers: what leaves a failed one is not to be started there."""
    if migration.cause is not MigrationCause.WORKER_FAILED:
        return []
    with term.reading() as tx:
        failed = {each.node_id for each in rescheduling.failed_nodes(tx)}
    return sorted(rules.avoided(service, failed - {migration.source_node_id}))


def is_overdue(term: Term, migration: Migration, service: EngineService | None, now: datetime) -> bool:
    """Tell whether a migration is to be ended, whichever way its service is moved."""
    coming = service is not None and not migration.is_hurried and makes_progress(service, migration.source_node_id)
    timeout = term.context.migrations.timeout
    is_late = migration_rules.is_overdue(migration.deadline_at, now, timeout, makes_progress=coming)
    return is_late or migration.cancelled_by is not None


def complete(
    tx: db.Transaction, term: Term, outcomes: Sequence[tuple[Migration, Decision]], observation: Observation
) -> list[Event]:
    """Note that services have left nodes, whoever moved them, and where they run."""
    left = [
        exclusions.Left(
            migration.id, migration.state, decision.reason, _node_of(migration, observation), decision.source_stopped
        )
        for migration, decision in outcomes
    ]
    completed = exclusions.complete(tx, left)
    told = [(completed[migration.id], decision) for migration, decision in outcomes if migration.id in completed]
    return [
        migration_event(done, EventKind.MIGRATION_COMPLETED, term, _outcome(done, decision)) for done, decision in told
    ]


def _node_of(migration: Migration, observation: Observation) -> str | None:
    service = observation.services.get(migration.swarm_service_id or "")
    task = rules.target(service, migration.source_node_id or "") if service else None
    return task.node_id if task else None


def _outcome(done: Migration, decision: Decision) -> str:
    where = f"on {done.target_worker_name}" if done.target_worker_name else "elsewhere"
    old = "nothing of it is left" if decision.source_stopped else "what was there stops when its worker returns"
    return "; ".join(part for part in (f"it runs {where}", old, decision.reason) if part)
