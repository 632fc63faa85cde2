"""What the swarm places by itself and a failed worker had: what the swarm starts elsewhere is watched, and what runs on
where the node is up is moved as by a drain."""

from collections.abc import Iterable
from datetime import datetime

from skyctl.domain.cluster import MassFailure
from skyctl.domain.engine import EngineService, Observation
from skyctl.domain.states import MigrationPolicy, MigrationState
from skyctl.domain.workloads import Migration
from skyctl.operations.monitor.drains import Look
from skyctl.operations.monitor.exclusions import is_overdue
from skyctl.operations.shared import image_volumes
from skyctl.operations.shared.leadership import Term
from skyctl.rules import eviction, exclusions
from skyctl.rules import rescheduling as rules
from skyctl.rules.migrations import Decision, Step
from skyctl.store import db, health
from skyctl.store import rescheduling as store
from skyctl.store.rescheduling import FailedNode, Moved


def call_for(tx: db.Transaction, term: Term, seen: Look) -> list[Migration]:
    """Write down a migration for each service that the swarm had placed on a failed worker's node, once for each time
    that the worker fails; return the new ones, and those that had not started and are the swarm's by now."""
    failed, lost = _failed(tx, seen)
    if not failed:
        return []
    seen, timeout = seen._replace(services=image_volumes.known_of(tx, seen.services)), term.context.migrations.timeout
    left = store.leave_off(tx, [each.worker_id for each in lost], rules.NODE_IS_DOWN, timeout)
    moved = [*_rescheduled(lost, seen), *_evicted(tx, [each for each in failed if each not in lost], seen)]
    return [*left, *store.insert(tx, moved, timeout)]


def note_seen(tx: db.Transaction, seen: Look) -> None:
    """Note of which failed workers it is written down what they had. Heartbeats wait from here to the end of the
    transaction."""
    failed, lost = _failed(tx, seen)
    store.note_seen(tx, [each.worker_id for each in failed], [each.worker_id for each in lost])


def watch(term: Term, migration: Migration, observation: Observation, now: datetime) -> Decision:
    """Decide what has become of what is left to the swarm. Nothing is ordered."""
    service, node_id = observation.services.get(migration.swarm_service_id or ""), migration.source_node_id
    if node_id is None:
        return Decision(Step.CANCEL, "its worker was removed")
    return rules.decide(
        service,
        node_id,
        node_is_up=not rules.is_lost(observation.nodes.get(node_id)),
        overdue=is_overdue(term, migration, service, now),
        is_cancelled=migration.cancelled_by is not None,
    )


def _failed(tx: db.Transaction, seen: Look) -> tuple[list[FailedNode], list[FailedNode]]:
    """Return the workers that were looked at and still count as failed; and of them those whose nodes the swarm has
    lost."""
    still = {failed.worker_id for failed in store.failed_nodes(tx)} if seen.failed else set()
    failed = [each for each in seen.failed if each.worker_id in still]
    return failed, [each for each in failed if rules.is_lost(seen.nodes.get(each.node_id))]


def _rescheduled(lost: Iterable[FailedNode], seen: Look) -> list[Moved]:
    """Return what the swarm starts elsewhere, whatever anybody wants."""
    return [
        Moved(
            service.id, service.name, failed.worker_id, MigrationState.VERIFYING, rules.reason(service, failed.node_id)
        )
        for failed in lost
        for service in _services(rules.left(seen.tasks.get(failed.node_id, ())), seen)
        if rules.is_rescheduled(service)
    ]


def _evicted(tx: db.Transaction, failed: Iterable[FailedNode], seen: Look) -> list[Moved]:
    """Return what the swarm leaves on nodes that are up, and is to leave them as what we pin does."""
    leaving = [
        (each, service)
        for each in failed
        for service in _services(exclusions.leaves(seen.tasks.get(each.node_id, ())), seen)
        if exclusions.can_be_kept_off(service)
    ]
    policies = store.policies(tx, {service.id for _, service in leaving})
    failures: dict[int, MassFailure] = {each.id: each for each in health.open_mass_failures(tx)} if leaving else {}
    moved = []
    for each, service in leaving:
        policy = policies.get(service.id, MigrationPolicy.AUTOMATIC)
        verdict = eviction.after_failure(policy, failures.get(each.mass_failure_id or 0))
        if verdict:
            why = (verdict.state, verdict.reason, verdict.mass_failure_id)
            moved.append(Moved(service.id, service.name, each.worker_id, *why))
    return moved


def _services(service_ids: Iterable[str], seen: Look) -> list[EngineService]:
    return [service for service_id in service_ids if (service := seen.services.get(service_id))]
