"""Stories of people about migrations: look, approve, reject, try again, cancel, pause. The monitor does the moving."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from skyctl.domain.cluster import Actor, Event, MassFailure
from skyctl.domain.errors import MigrationNotFound, Refused
from skyctl.domain.events import EventKind, MigrationRef, Policy, Resumed
from skyctl.domain.workloads import Migration, MigrationPage, MigrationPolicy, MigrationState, Organization
from skyctl.operations.shared.context import Context
from skyctl.rules import migrations as rules
from skyctl.store import db, events, health, leases, migration_pauses, organizations
from skyctl.store import migrations as store

SHORTEST_PREFIX = 4
STATES = MigrationState


def list_migrations(
    context: Context,
    *,
    states: Sequence[MigrationState] = (),
    worker_id: UUID | None = None,
    limit: int = 100,
    offset: int = 0,
) -> MigrationPage:
    """One page of the migrations: the unfinished ones first, then the latest."""
    with context.db.transaction() as tx:
        found, total = store.page(tx, states, worker_id, limit, offset)
        return MigrationPage(found, total, db.now(tx), migration_pauses.current(tx), leases.engine_trouble(tx))


def history(context: Context, migration_id: UUID) -> list[Event]:
    """What happened to a migration, in order."""
    with context.db.transaction() as tx:
        return events.of_migration(tx, migration_id)


def approve(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Let a migration go on that waits for approval, or is held. Raises MigrationNotFound, Refused."""
    return _change(context, migration_id, actor, "approved", (STATES.AWAITING_APPROVAL, STATES.HELD), STATES.QUEUED, "")


def reject(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Let a container stay that waits for approval, or is held. Raises MigrationNotFound, Refused."""
    waiting = (STATES.AWAITING_APPROVAL, STATES.HELD)
    return _change(context, migration_id, actor, "rejected", waiting, STATES.CANCELLED, f"rejected by {actor.name}")


def retry(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Try a failed migration again, at once and with all its attempts. Raises MigrationNotFound, Refused."""

    def change(tx: db.Transaction, found: Migration) -> bool:
        unfinished = [each for each in store.of_service(tx, found.service_id) if each.finished_at is None]
        if unfinished and unfinished[0].id != found.id:
            raise Refused(
                f"{found.service_name} is in another migration", f"see `skyctl migrations show {unfinished[0].id}`"
            )
        return store.try_again(tx, found)

    return _decide(context, migration_id, actor, "retried", (STATES.FAILED,), change)


def cancel(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Let a container stay: one that has not started is cancelled, one that is under way is rolled back, unless it
    completes before that. Raises MigrationNotFound, Refused."""

    def change(tx: db.Transaction, found: Migration) -> bool:
        if found.state in rules.UNDER_WAY:
            return store.cancel_under_way(tx, found, actor.name)
        return store.change(tx, found, STATES.CANCELLED, reason=f"cancelled by {actor.name}")

    return _decide(context, migration_id, actor, "cancelled", (*rules.WAITING, *rules.UNDER_WAY), change)


def pause(context: Context, actor: Actor, length: timedelta | None, reason: str | None) -> None:
    """Let no migration begin, for so long or until `resume`; what is under way goes on."""
    with context.db.transaction() as tx:
        events.lock(tx)
        migration_pauses.begin(tx, actor.name, length, reason)
        said = f"for {length}" if length else "until they are resumed"
        told = f"{said}: {reason}" if reason else said
        events.record(tx, Event(EventKind.MIGRATIONS_PAUSED, None, None, actor.name, reason=told), actor)


def resume(context: Context, actor: Actor) -> tuple[bool, list[MassFailure]]:
    """Let containers be moved again: after a pause, and off all workers that fell silent at once; whether there was a
    pause, and the mass failures that are lifted."""
    with context.db.transaction() as tx:
        events.lock(tx)
        was_paused = migration_pauses.end(tx, actor.name)
        open_failures = health.open_mass_failures(tx)
        health.lift_mass_failures(tx, [failure.id for failure in open_failures], actor.name)
        if was_paused:
            events.record(
                tx, Event(EventKind.MIGRATIONS_RESUMED, None, None, actor.name, reason="the pause is over"), actor
            )
        for failure in open_failures:
            details = Resumed(massFailureId=failure.id, region=failure.region, silent=failure.silent)
            reason = f"{failure.silent} workers fell silent at once, and are dealt with as if one by one"
            events.record(
                tx, Event(EventKind.MIGRATIONS_RESUMED, None, None, actor.name, reason=reason, details=details), actor
            )
        db.notify_news(tx)
        return was_paused, open_failures


def policies(context: Context) -> list[Organization]:
    """What each organization wants when a worker fails, by its slug."""
    with context.db.transaction() as tx:
        return organizations.matching_organizations(tx, None)


def set_policy(context: Context, organization: Organization, policy: MigrationPolicy, actor: Actor) -> None:
    """Write down what an organization wants when a worker fails, from the next failure on."""
    with context.db.transaction() as tx:
        events.lock(tx)
        organizations.set_policy(tx, organization.id, policy)
        details = Policy(organizationId=str(organization.id), policy=policy.value)
        reason = f"{organization.slug}: {policy.value}, before that {organization.policy.value}"
        events.record(tx, Event(EventKind.POLICY_SET, None, None, actor.name, reason=reason, details=details), actor)


def _change(
    context: Context,
    migration_id: UUID,
    actor: Actor,
    verb: str,
    seen: Sequence[MigrationState],
    then: MigrationState,
    reason: str,
) -> Migration:
    return _decide(
        context, migration_id, actor, verb, seen, lambda tx, found: store.change(tx, found, then, reason=reason)
    )


def _decide(
    context: Context,
    migration_id: UUID,
    actor: Actor,
    verb: str,
    seen: Sequence[MigrationState],
    change: Callable[[db.Transaction, Migration], bool],
) -> Migration:
    """Change a migration that is in one of these states; what it is then."""
    with context.db.transaction() as tx:
        events.lock(tx)
        found = next(iter(store.fetch(tx, [migration_id])), None)
        if found is None:
            raise MigrationNotFound(f"there is no migration {migration_id}", "see `skyctl migrations list`")
        if found.state not in seen or (found.finished_at and found.state is not STATES.FAILED) or not change(tx, found):
            possible = " or ".join(state.value for state in seen)
            raise Refused(
                f"{found.service_name}'s migration is {found.state.value}", f"only one that is {possible} can be {verb}"
            )
        details = MigrationRef(
            migrationId=str(migration_id), serviceId=str(found.service_id), serviceName=found.service_name
        )
        told = Event(
            EventKind[f"MIGRATION_{verb.upper()}"],
            found.source_worker_id,
            found.source_worker_name,
            actor.name,
            reason=found.service_name,
            details=details,
        )
        events.record(tx, told, actor)
        db.notify_news(tx)
        return store.fetch(tx, [migration_id])[0]
