"""List, approve, reject, retry, cancel and pause migrations. The monitor moves the containers."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from skyctl.domain.cluster import Actor, Event, MassFailure
from skyctl.domain.errors import MigrationNotFound, Refused
from skyctl.domain.event_details import MigrationRef, Policy, Resumed
from skyctl.domain.events import EventKind
from skyctl.domain.states import MigrationOrder, MigrationPolicy, MigrationState
from skyctl.domain.workloads import Migration, MigrationPage, Organization
from skyctl.operations.shared.context import Context
from skyctl.rules import migrations as rules
from skyctl.store import db, events, health, leases, listings, migration_pauses, organizations
from skyctl.store import migrations as store

STATES = MigrationState


def list_migrations(
    context: Context,
    *,
    states: Sequence[MigrationState] = (),
    worker_ids: Sequence[UUID] = (),
    order: MigrationOrder = MigrationOrder.FINISHED,
    limit: int | None = 100,
    offset: int = 0,
) -> MigrationPage:
    """Return one page of the migrations, all without `limit`: in one of these states, off or to one of these workers,
    where there are any."""
    with context.db.transaction() as tx:
        page, total = listings.migrations_page(
            tx, states=states, worker_ids=worker_ids, order=order, limit=limit, offset=offset
        )
        return MigrationPage(page, total, db.now(tx), migration_pauses.current(tx), leases.engine_trouble(tx))


def history(context: Context, migration_id: UUID) -> list[Event]:
    """Return the events of a migration, in order."""
    with context.db.transaction() as tx:
        return events.of_migration(tx, migration_id)


def approve(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Queue a migration that waits for approval, or is held. Raises MigrationNotFound, Refused."""
    return _change(context, migration_id, actor, "approved", (STATES.AWAITING_APPROVAL, STATES.HELD), STATES.QUEUED, "")


def reject(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Cancel a migration that waits for approval, or is held. Raises MigrationNotFound, Refused."""
    waiting = (STATES.AWAITING_APPROVAL, STATES.HELD)
    return _change(context, migration_id, actor, "rejected", waiting, STATES.CANCELLED, f"rejected by {actor.name}")


def retry(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Retry a failed migration at once, with all its attempts. Raises MigrationNotFound, Refused."""

    def change(tx: db.Transaction, failed: Migration) -> bool:
        unfinished = store.of_same(tx, failed)
        if unfinished and unfinished[0].id != failed.id:
            raise Refused(
                f"{failed.service_name} is in another migration", f"see `skyctl migrations show {unfinished[0].id}`"
            )
        return store.try_again(tx, failed)

    return _decide(context, migration_id, actor, "retried", (STATES.FAILED,), change)


def cancel(context: Context, migration_id: UUID, actor: Actor) -> Migration:
    """Cancel a migration: one that is under way is rolled back, unless it completes before that.

    Raises MigrationNotFound, Refused.
    """

    def change(tx: db.Transaction, migration: Migration) -> bool:
        if migration.state in rules.UNDER_WAY:
            return store.cancel_under_way(tx, migration, actor.name)
        return store.change(tx, migration, STATES.CANCELLED, reason=f"cancelled by {actor.name}")

    return _decide(context, migration_id, actor, "cancelled", (*rules.WAITING, *rules.UNDER_WAY), change)


def pause(context: Context, actor: Actor, length: timedelta | None, reason: str | None) -> None:
    """Keep migrations from starting, for this length or until `resume`; what is under way goes on."""
    with context.recording() as tx:
        migration_pauses.begin(tx, actor.name, length, reason)
        how_long = f"for {length}" if length else "until they are resumed"
        whole_reason = f"{how_long}: {reason}" if reason else how_long
        events.record(tx, Event(EventKind.MIGRATIONS_PAUSED, None, None, actor.name, reason=whole_reason), actor)


def resume(context: Context, actor: Actor) -> tuple[bool, list[MassFailure]]:
    """End the pause, and lift all mass failures; return whether there was a pause, and which mass failures were
    lifted."""
    with context.recording() as tx:
        was_paused = migration_pauses.end(tx, actor.name)
        open_failures = health.open_mass_failures(tx)
        health.lift_mass_failures(tx, [failure.id for failure in open_failures], actor.name)
        if was_paused:
            events.record(
                tx, Event(EventKind.MIGRATIONS_RESUMED, None, None, actor.name, reason="the pause is over"), actor
            )
        for failure in open_failures:
            details = Resumed(massFailureId=failure.id, region=failure.region, silent=failure.silent)
            reason = f"{failure.silent} workers failed at once, and are dealt with as if one by one"
            events.record(
                tx, Event(EventKind.MIGRATIONS_RESUMED, None, None, actor.name, reason=reason, details=details), actor
            )
        db.notify_news(tx)
        return was_paused, open_failures


def policies(context: Context) -> list[Organization]:
    """Return the organizations by slug, each with its policy for when a worker fails."""
    with context.db.transaction() as tx:
        return organizations.matching_organizations(tx, None)


def set_policy(context: Context, organization: Organization, policy: MigrationPolicy, actor: Actor) -> None:
    """Set an organization's policy for when a worker fails; it holds from the next failure on."""
    with context.recording() as tx:
        organizations.set_policy(tx, organization.id, policy)
        details = Policy(organizationId=str(organization.id), policy=policy.value)
        reason = f"{organization.slug}: {policy.value}, before that {organization.policy.value}"
        events.record(tx, Event(EventKind.POLICY_SET, None, None, actor.name, reason=reason, details=details), actor)


def _change(
    context: Context,
    migration_id: UUID,
    actor: Actor,
    verb: str,
    possible: Sequence[MigrationState],
    state: MigrationState,
    reason: str,
) -> Migration:
    def change(tx: db.Transaction, migration: Migration) -> bool:
        return store.change(tx, migration, state, reason=reason)

    return _decide(context, migration_id, actor, verb, possible, change)


def _decide(
    context: Context,
    migration_id: UUID,
    actor: Actor,
    verb: str,
    possible: Sequence[MigrationState],
    change: Callable[[db.Transaction, Migration], bool],
) -> Migration:
    """Change a migration that is in one of the possible states, record that, and return it as it is then.

    Raises MigrationNotFound, Refused.
    """
    with context.recording() as tx:
        migration = next(iter(store.fetch(tx, [migration_id])), None)
        if migration is None:
            raise MigrationNotFound(f"there is no migration {migration_id}", "see `skyctl migrations list`")
        is_over = migration.finished_at and migration.state is not STATES.FAILED
        if migration.state not in possible or is_over or not change(tx, migration):
            states = " or ".join(state.value for state in possible)
            raise Refused(
                f"{migration.service_name}'s migration is {migration.state.value}",
                f"only one that is {states} can be {verb}",
            )
        details = MigrationRef(
            migrationId=str(migration_id),
            serviceId=str(migration.service_id) if migration.service_id else None,
            serviceName=migration.service_name,
        )
        source = (migration.source_worker_id, migration.source_worker_name)
        decision = Event(
            EventKind[f"MIGRATION_{verb.upper()}"], *source, actor.name, reason=migration.service_name, details=details
        )
        events.record(tx, decision, actor)
        db.notify_news(tx)
        return store.fetch(tx, [migration_id])[0]
