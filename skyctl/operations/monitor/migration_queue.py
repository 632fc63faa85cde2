"""Decide which of the queued migrations start: each needs a place, and a free slot among those that may run at once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event
from skyctl.domain.engine import EngineNode
from skyctl.domain.events import EventKind, MigrationRef
from skyctl.domain.states import MigrationState
from skyctl.domain.workloads import Demand, Migration, Placement, Refusal, Service
from skyctl.operations.shared import candidates
from skyctl.operations.shared.leadership import Term
from skyctl.rules import placement
from skyctl.store import db, deployments, drains, events, migration_pauses, services
from skyctl.store import migrations as store

MOST_QUEUED = 5_000
ITS_TURN = "waits for its turn"


class Choice(NamedTuple):
    """A queued migration, the service that it moves, and the place that was found for it."""

    migration: Migration
    service: Service
    place: Placement | Refusal


def start_queued(term: Term, nodes: Mapping[str, EngineNode]) -> list[Event]:
    """Give the queued migrations their targets, and start as many as may run at once.

    All of them are placed before anything is locked, since that may take long; the chosen ones once more afterwards.
    """
    context = term.context
    with term.reading() as tx:
        work, is_paused = store.work(tx, MOST_QUEUED), migration_pauses.current(tx) is not None
        free = context.migrations.at_once - len(work.under_way)
        if free <= 0 or not work.queued or is_paused:
            return []
        by_id = {service.id: service for service in services.fetch(tx, [queued.service_id for queued in work.queued])}
        workers, off_one = candidates.candidates(tx, nodes), drains.max_parallel(tx)
    waiting = [
        (queued, by_id[queued.service_id])
        for queued in work.queued
        if _is_of_current(queued, by_id.get(queued.service_id))
    ]
    places = placement.plan([_demand(*pair) for pair in waiting], workers, context.health)
    choices = [Choice(*pair, place) for pair, place in zip(waiting, places, strict=True)]
    slots = Slots(work.under_way, context.migrations.into_one, off_one, free)
    chosen = [
        choice
        for choice in choices
        if isinstance(choice.place, Placement) and slots.take(choice.migration.source_worker_id, choice.place.worker_id)
    ]
    with term.recording() as tx:
        started = _start_chosen(tx, term, nodes, chosen)
        reasons = [
            (choice.migration, choice.place.reason if isinstance(choice.place, Refusal) else ITS_TURN)
            for choice in choices
            if choice not in chosen
        ]
        store.note_reasons(tx, reasons)
        return events.append(tx, *started)


def _is_of_current(migration: Migration, service: Service | None) -> bool:
    """Tell whether what a migration moves is still the service's current deployment."""
    return service is not None and service.current is not None and service.current.id == migration.source_deployment_id


def _demand(migration: Migration, service: Service) -> Demand:
    return candidates.demand(migration.id, service.spec, migration.source_worker_id, migration.avoid)


def _start_chosen(
    tx: db.Transaction, term: Term, nodes: Mapping[str, EngineNode], chosen: Sequence[Choice]
) -> list[Event]:
    """Start the chosen migrations that still have their place and are still called for."""
    by_id = {service.id: service for service in services.fetch(tx, [choice.service.id for choice in chosen])}
    queued = {
        migration.id
        for migration in store.fetch(tx, [choice.migration.id for choice in chosen])
        if migration.state is MigrationState.QUEUED
    }
    still = [
        choice
        for choice in chosen
        if choice.migration.id in queued and _is_of_current(choice.migration, by_id.get(choice.service.id))
    ]
    targets = {choice.place.worker_id for choice in still if isinstance(choice.place, Placement)}
    demands = [_demand(choice.migration, choice.service) for choice in still]
    places = candidates.plan(tx, demands, nodes, term.context.health, only=targets)
    return [
        _start(tx, term, choice.migration, place, reason=choice.place.reason)
        for choice, place in zip(still, places, strict=True)
        if isinstance(place, Placement)
    ]


class Slots:
    """Limit how many migrations run: in all, into one worker, and off one where its drain is limited.

    `off_one` is that limit by worker, `free` how many more may start in all.
    """

    def __init__(self, under_way: Sequence[Migration], into_one: int, off_one: dict[UUID, int], free: int) -> None:
        self._into = Counter(migration.target_worker_id for migration in under_way)
        self._off = Counter(migration.source_worker_id for migration in under_way)
        self._into_one, self._off_one, self._free = into_one, off_one, free

    def take(self, source: UUID | None, target: UUID) -> bool:
        """Take a slot for one more migration; False where none is free."""
        limit = self._off_one.get(source, self._off[source] + 1) if source else self._off[source] + 1
        if self._free <= 0 or self._into[target] >= self._into_one or self._off[source] >= limit:
            return False
        self._free -= 1
        self._into[target] += 1
        self._off[source] += 1
        return True


def _start(tx: db.Transaction, term: Term, migration: Migration, place: Placement, *, reason: str) -> Event:
    deployment = deployments.insert_move(tx, migration.service_id, place.worker_id, migration.source_deployment_id)
    started = store.begin(tx, migration, place.worker_id, deployment, term.context.migrations.timeout)
    return migration_event(started, EventKind.MIGRATION_STARTED, term, f"to {started.target_worker_name}: {reason}")


def migration_event(migration: Migration, kind: EventKind, term: Term, reason: str, *, final: bool = False) -> Event:
    """Return an event of a migration; `final`: it is not tried again."""
    details = MigrationRef(
        migrationId=str(migration.id),
        serviceId=str(migration.service_id),
        serviceName=migration.service_name,
        organizationId=str(migration.organization_id),
        cause=migration.cause.value,
        attempt=migration.attempts,
        targetWorkerId=str(migration.target_worker_id) if migration.target_worker_id else None,
        targetWorkerName=migration.target_worker_name,
    )
    if final:
        details["final"] = True
    return Event(
        kind,
        migration.source_worker_id,
        migration.source_worker_name,
        "monitor",
        reason=f"{migration.service_name}: {reason}" if reason else migration.service_name,
        details=details,
        term=term.number,
    )
