"""Decide which of the queued migrations start: each needs a place, and a free slot among those that may run at once."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event, HealthPolicy
from skyctl.domain.engine import EngineNode, EngineService, Observation
from skyctl.domain.event_details import MigrationRef
from skyctl.domain.events import EventKind
from skyctl.domain.states import MigrationCause, MigrationState
from skyctl.domain.workloads import Candidate, Demand, Migration, Placement, Refusal, Service
from skyctl.operations.shared import candidates, image_volumes
from skyctl.operations.shared.candidates import Ground
from skyctl.operations.shared.leadership import Term
from skyctl.rules import exclusions, local_state, placement
from skyctl.rules.local_state import Way
from skyctl.rules.rescheduling import NODE_IS_DOWN, is_lost, is_of_swarm
from skyctl.store import db, deployments, drains, events, migration_pauses, rescheduling, services
from skyctl.store import migrations as store

MOST_QUEUED = 5_000
ITS_TURN = "waits for its turn"


class Choice(NamedTuple):
    """A queued migration, the service that it moves, and the place that was found for it."""

    migration: Migration
    service: Service
    place: Placement | Refusal


class Started(NamedTuple):
    """The migrations that were started, what the engine showed when they were, and the events."""

    events: Sequence[Event] = ()
    migrations: Sequence[Migration] = ()
    observation: Observation = Observation({}, {})


def start_queued(term: Term) -> Started:
    """Give the queued migrations their targets, and start as many as may run at once; end those of what stays.

    All of them are placed before anything is locked, since that may take long; the chosen ones once more afterwards.
    """
    context = term.context
    with term.reading() as tx:
        work, is_paused = store.work(tx, MOST_QUEUED), migration_pauses.current(tx) is not None
        ours = [migration for migration in work.under_way if not migration.is_left_to_swarm]
        free = context.migrations.at_once - len(ours)
        if free <= 0 or not work.queued or is_paused:
            return Started()
        by_id, off_one = _services(tx, work.queued), drains.max_parallel(tx)
        may_lose, failed = drains.leaving_local_data(tx), {each.node_id for each in rescheduling.failed_nodes(tx)}
    ground = candidates.ground(term.observe())
    with term.reading() as tx:
        workers = candidates.candidates(tx, ground)
        ground = ground._replace(swarm=image_volumes.known(tx, ground.swarm))
    lost = [migration for migration in work.queued if _is_lost(migration, ground)]
    asked = [migration for migration in work.queued if migration not in lost]
    staying = _staying(asked, ground, may_lose)
    queued = [migration for migration in asked if migration.id not in staying]
    choices = _choose(queued, by_id, ground, workers, context.health)
    slots = Slots(ours, context.migrations.into_one, off_one, free)
    chosen = [
        choice
        for choice in sorted(choices, key=_turn)
        if isinstance(choice.place, Placement) and slots.take(choice.migration.source_worker_id, choice.place.worker_id)
    ]
    waiting = _waiting(queued, ground, failed)
    excluding = _take_excluding(ours, [each for each in queued if waiting.get(each.id) == ""], slots)
    with term.recording() as tx:
        ended = _still_queued(tx, [migration for migration in work.queued if migration.id in staying])
        written = [_end_staying(tx, term, migration, staying[migration.id]) for migration in ended]
        started = _start_chosen(tx, term, ground, chosen)
        started += [_start_excluding(tx, term, ground, migration) for migration in _still_queued(tx, excluding)]
        written += [event for _, event in started]
        written += [
            migration_event(migration, EventKind.MIGRATION_STARTED, term, migration.reason)
            for migration in rescheduling.leave(tx, lost, NODE_IS_DOWN, context.migrations.timeout)
        ]
        reasons = [
            (choice.migration, choice.place.reason if isinstance(choice.place, Refusal) else ITS_TURN)
            for choice in choices
            if choice not in chosen
        ]
        reasons += [(each, waiting[each.id] or ITS_TURN) for each in queued if each.id in waiting]
        store.note_reasons(tx, [(migration, reason) for migration, reason in reasons if migration not in excluding])
        return Started(events.append(tx, *written), [migration for migration, _ in started], ground.swarm)


def _choose(
    queued: Sequence[Migration],
    by_id: Mapping[UUID, Service],
    ground: Ground,
    workers: Sequence[Candidate],
    policy: HealthPolicy,
) -> list[Choice]:
    """Return the places of the queued migrations of what we pin."""
    waiting = [
        (migration, service)
        for migration in queued
        if migration.service_id and (service := by_id.get(migration.service_id)) and _is_of_current(migration, service)
    ]
    places = placement.plan([_demand(*pair, ground) for pair in waiting], workers, policy)
    return [Choice(*pair, place) for pair, place in zip(waiting, places, strict=True)]


def _staying(queued: Sequence[Migration], ground: Ground, may_lose: Collection[UUID]) -> dict[UUID, str]:
    """Return the migrations of services that stay where they are, and why: by what they keep there, by their owner's
    word, or since no other node of the swarm would do."""
    staying = {}
    for migration in queued:
        service = ground.swarm.services.get(migration.swarm_service_id or "")
        if service is None:
            continue
        moves_local_data = migration.cause is MigrationCause.DRAIN and migration.source_worker_id in may_lose
        leaving = local_state.leaving(service, migration.source_node_id)
        way, reason = local_state.moving(leaving, moves_local_data=moves_local_data)
        if way is Way.STAYS:
            staying[migration.id] = reason
        elif migration.service_id is None and (
            never := exclusions.nowhere_else(service, migration.source_node_id, ground.swarm.nodes, ground.uses)
        ):
            staying[migration.id] = never
    return staying


def _waiting(queued: Sequence[Migration], ground: Ground, failed: Collection[str]) -> dict[UUID, str]:
    """Return the migrations of what the swarm places, and what each waits for; empty for nothing but its turn. `failed`
    are the nodes of failed workers."""
    waiting = {}
    for migration in queued:
        if migration.service_id is None:
            service = ground.swarm.services.get(migration.swarm_service_id or "")
            nodes = _targets(migration, service, ground, failed) if service else {}
            waiting[migration.id] = (
                exclusions.waits_for(service, migration.source_node_id, nodes, ground.uses) if service else ""
            )
    return waiting


def _targets(
    migration: Migration, service: EngineService, ground: Ground, failed: Collection[str]
) -> Mapping[str, EngineNode]:
    """Return the nodes on which the swarm may start a service."""
    avoided = exclusions.avoided(service, failed) if migration.cause is MigrationCause.WORKER_FAILED else set()
    return {node.id: node for node in ground.swarm.nodes.values() if node.id not in avoided}


def _end_staying(tx: db.Transaction, term: Term, migration: Migration, why: str) -> Event:
    """End the migration of a service that stays: of a failed worker people are told."""
    reason = f"it stays: {why}"
    if migration.cause is MigrationCause.WORKER_FAILED:
        store.fail(tx, migration, reason, None)
        return migration_event(migration, EventKind.MIGRATION_FAILED, term, reason, final=True)
    store.change(tx, migration, MigrationState.CANCELLED, reason=reason)
    return migration_event(migration, EventKind.MIGRATION_CANCELLED, term, reason)


def _services(tx: db.Transaction, migrations: Iterable[Migration]) -> dict[UUID, Service]:
    wanted = [migration.service_id for migration in migrations if migration.service_id]
    return {service.id: service for service in services.fetch(tx, wanted)}


def _is_lost(migration: Migration, ground: Ground) -> bool:
    """Tell whether the swarm itself starts elsewhere what a migration is to move."""
    return is_of_swarm(migration) and is_lost(ground.swarm.nodes.get(migration.source_node_id or ""))


def _take_excluding(under_way: Sequence[Migration], ready: Sequence[Migration], slots: "Slots") -> list[Migration]:
    """Return which of those that the swarm places start: one at a time of a service, since each of its updates ends the
    one before."""
    taken, moving = [], {migration.swarm_service_id for migration in under_way}
    for queued in ready:
        if queued.swarm_service_id not in moving and slots.take(queued.source_worker_id, None):
            taken.append(queued)
            moving.add(queued.swarm_service_id)
    return taken


def _still_queued(tx: db.Transaction, migrations: Sequence[Migration]) -> list[Migration]:
    found = store.fetch(tx, [migration.id for migration in migrations])
    return [migration for migration in found if migration.state is MigrationState.QUEUED]


def _start_excluding(tx: db.Transaction, term: Term, ground: Ground, migration: Migration) -> tuple[Migration, Event]:
    started = store.begin_excluding(tx, migration, term.context.migrations.timeout)
    return _started(term, ground, started, "off its node: the swarm places it elsewhere")


def _started(term: Term, ground: Ground, migration: Migration, where: str) -> tuple[Migration, Event]:
    """A migration that begins, with its event, which says what data its service begins without."""
    service = ground.swarm.services.get(migration.swarm_service_id or "")
    left = local_state.left_behind(local_state.leaving(service, migration.source_node_id)) if service else ""
    reason = f"{where}; it starts empty: {left}" if left else where
    return migration, migration_event(migration, EventKind.MIGRATION_STARTED, term, reason)


def _is_of_current(migration: Migration, service: Service | None) -> bool:
    """Tell whether what a migration moves is still the service's current deployment."""
    return service is not None and service.current is not None and service.current.id == migration.source_deployment_id


def _turn(choice: Choice) -> tuple[bool, datetime, int]:
    """The order in which migrations start: those of failed workers first, then the oldest, then as they were placed, so
    that the others are placed alike the next time."""
    turn = choice.place.turn if isinstance(choice.place, Placement) else 0
    return choice.migration.cause is not MigrationCause.WORKER_FAILED, choice.migration.created_at, turn


def _demand(migration: Migration, service: Service, ground: Ground) -> Demand:
    return candidates.move_demand(service, ground, migration.avoid)


def _start_chosen(
    tx: db.Transaction, term: Term, ground: Ground, chosen: Sequence[Choice]
) -> list[tuple[Migration, Event]]:
    """Start the chosen migrations that still have their very place and are still called for."""
    by_id = _services(tx, [choice.migration for choice in chosen])
    queued = {migration.id for migration in _still_queued(tx, [choice.migration for choice in chosen])}
    still = [
        choice
        for choice in chosen
        if choice.migration.id in queued and _is_of_current(choice.migration, by_id.get(choice.service.id))
    ]
    by_target: dict[UUID, list[Choice]] = {}
    for choice in still:
        if isinstance(choice.place, Placement):
            by_target.setdefault(choice.place.worker_id, []).append(choice)
    started = []
    for target, into_it in by_target.items():
        demands = [_demand(choice.migration, choice.service, ground) for choice in into_it]
        places = candidates.plan(tx, demands, ground, term.context.health, only=[target])
        started += [
            _start(tx, term, ground, choice, place)
            for choice, place in zip(into_it, places, strict=True)
            if isinstance(place, Placement)
        ]
    return started


class Slots:
    """Limit how many migrations run: in all, into one worker, and off one where its drain is limited.

    `off_one` is that limit by worker, `free` how many more may start in all.
    """

    def __init__(self, under_way: Sequence[Migration], into_one: int, off_one: dict[UUID, int], free: int) -> None:
        self._into = Counter(migration.target_worker_id for migration in under_way)
        self._off = Counter(migration.source_worker_id for migration in under_way)
        self._into_one, self._off_one, self._free = into_one, off_one, free

    def take(self, source: UUID | None, target: UUID | None) -> bool:
        """Take a slot for one more migration, the target of which the swarm chooses where it is None; False where none
        is free."""
        limit = self._off_one.get(source, self._off[source] + 1) if source else self._off[source] + 1
        is_full = target is not None and self._into[target] >= self._into_one
        if self._free <= 0 or is_full or self._off[source] >= limit:
            return False
        self._free -= 1
        self._into[target] += 1
        self._off[source] += 1
        return True


def _start(tx: db.Transaction, term: Term, ground: Ground, choice: Choice, place: Placement) -> tuple[Migration, Event]:
    migration, reason = choice.migration, choice.place.reason
    deployment = deployments.insert_move(tx, choice.service.id, place.worker_id, migration.source_deployment_id)
    started = store.begin(tx, migration, place.worker_id, deployment, term.context.migrations.timeout)
    return _started(term, ground, started, f"to {started.target_worker_name}: {reason}")


def migration_event(migration: Migration, kind: EventKind, term: Term, reason: str, *, final: bool = False) -> Event:
    """Return an event of a migration; `final`: it is not tried again."""
    details = MigrationRef(
        migrationId=str(migration.id),
        serviceId=str(migration.service_id) if migration.service_id else None,
        swarmServiceId=migration.swarm_service_id,
        serviceName=migration.service_name,
        organizationId=str(migration.organization_id) if migration.organization_id else None,
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
