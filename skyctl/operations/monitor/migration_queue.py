"""Which of the queued migrations begin: a place for each, and a turn for as many as may run at once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event, Lease
from skyctl.domain.engine import EngineNode
from skyctl.domain.events import EventKind, MigrationRef
from skyctl.domain.workloads import Demand, Migration, MigrationState, Placement, Refusal, Service
from skyctl.operations.shared import candidates
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leadership import TTL
from skyctl.rules import placement
from skyctl.store import db, drains, events, leases, migration_pauses, services
from skyctl.store import migrations as store

MOST_QUEUED = 5_000
ITS_TURN = "waits for its turn"


class Choice(NamedTuple):
    """A queued migration, the service that it moves, and the place that was found for it."""

    migration: Migration
    service: Service
    place: Placement | Refusal


def start_queued(context: Context, lease: Lease, nodes: Mapping[str, EngineNode]) -> list[Event]:
    """Give the queued migrations their targets, and let as many begin as may run at once.

    All of them are planned for before anything is locked, since that may take long; those that are chosen once more
    afterwards.
    """
    with context.db.transaction() as tx:
        work, is_paused = store.work(tx, MOST_QUEUED), migration_pauses.current(tx) is not None
        free = context.migrations.at_once - len(work.under_way)
        if free <= 0 or not work.queued or is_paused:
            return []
        known = {each.id: each for each in services.fetch(tx, [each.service_id for each in work.queued])}
        seen, off_one = candidates.candidates(tx, nodes), drains.max_parallel(tx)
    waiting = [
        (each, known[each.service_id]) for each in work.queued if _is_of_current(each, known.get(each.service_id))
    ]
    places = placement.plan([_demand(*each) for each in waiting], seen, context.health)
    choices = [Choice(*each, place) for each, place in zip(waiting, places, strict=True)]
    turns = Slots(work.under_way, context.migrations.into_one, off_one, free)
    chosen = [
        each
        for each in choices
        if isinstance(each.place, Placement) and turns.take(each.migration.source_worker_id, each.place.worker_id)
    ]
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        begun = _start_those(tx, context, lease, nodes, chosen)
        reasons = [
            (each.migration, each.place.reason if isinstance(each.place, Refusal) else ITS_TURN) for each in choices
        ]
        store.note_reasons(tx, [each for each, choice in zip(reasons, choices, strict=True) if choice not in chosen])
        return events.append(tx, *begun)


def _is_of_current(migration: Migration, service: Service | None) -> bool:
    """Whether what a migration moves is still what the service is."""
    return service is not None and service.current is not None and service.current.id == migration.source_deployment_id


def _demand(migration: Migration, service: Service) -> Demand:
    return candidates.demand(migration.id, service.spec, migration.source_worker_id, migration.avoid)


def _start_those(
    tx: db.Transaction, context: Context, lease: Lease, nodes: Mapping[str, EngineNode], chosen: Sequence[Choice]
) -> list[Event]:
    """Begin those that still have their place and are still called for."""
    now = {each.id: each for each in services.fetch(tx, [each.service.id for each in chosen])}
    queued = {
        each.id
        for each in store.fetch(tx, [each.migration.id for each in chosen])
        if each.state is MigrationState.QUEUED
    }
    still = [
        each
        for each in chosen
        if each.migration.id in queued and _is_of_current(each.migration, now.get(each.service.id))
    ]
    targets = {each.place.worker_id for each in still if isinstance(each.place, Placement)}
    places = candidates.plan(
        tx, [_demand(each.migration, each.service) for each in still], nodes, context.health, only=targets
    )
    return [
        _start(tx, context, lease, each.migration, place, reason=each.place.reason)
        for each, place in zip(still, places, strict=True)
        if isinstance(place, Placement)
    ]


class Slots:
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


def _start(
    tx: db.Transaction, context: Context, lease: Lease, migration: Migration, place: Placement, *, reason: str
) -> Event:
    deployment = services.insert_move(tx, migration.service_id, place.worker_id, migration.source_deployment_id)
    begun = store.begin(tx, migration, place.worker_id, deployment, context.migrations.timeout)
    return migration_event(begun, EventKind.MIGRATION_STARTED, lease, f"to {begun.target_worker_name}: {reason}")


def migration_event(migration: Migration, kind: EventKind, lease: Lease, reason: str, *, final: bool = False) -> Event:
    """What is told of a migration; `final`: it is not tried again."""
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
    told = f"{migration.service_name}: {reason}" if reason else migration.service_name
    return Event(
        kind,
        migration.source_worker_id,
        migration.source_worker_name,
        "monitor",
        reason=told,
        details=details,
        term=lease.term,
    )
