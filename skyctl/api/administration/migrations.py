"""Migrations and policies over HTTP."""

from collections.abc import Callable
from uuid import UUID

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route, Work, parameter
from skyctl.api.administration.schemas import FLAG, MAYBE_TEXT, OBJECT, many, maybe, one_of
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import COUNT, NAME, TEXT, TIME, Document, json_object, reference
from skyctl.documents import cli, http, times
from skyctl.documents.http import LONGEST_REASON
from skyctl.domain.api_tokens import Role
from skyctl.domain.cluster import Actor
from skyctl.domain.states import MigrationOrder, MigrationPolicy, MigrationState
from skyctl.domain.workloads import Migration
from skyctl.operations.admin import migrations, services, workers
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context

Decide = Callable[[Context, UUID, Actor], Migration]


def list_migrations(context: Context, request: ApiRequest) -> Document:
    """List one page of migrations."""
    page = migrations.list_migrations(
        context,
        states=reading.choices(request, "state", MigrationState),
        worker_ids=reading.worker_ids(context, request),
        order=reading.order(request, MigrationOrder.FINISHED),
        limit=reading.limit(request),
        offset=reading.offset(request),
    )
    return cli.migrations_document(page)


def show(context: Context, request: ApiRequest) -> Document:
    """Show a migration, and what happened to it."""
    found = lookup.find_migration(context, reading.reference(request))
    return cli.migration_history_document(found, migrations.history(context, found.id), workers.read_at(context))


def decides(decide: Decide) -> Work:
    """Return what decides about the migration that the path names."""

    def work(context: Context, request: ApiRequest) -> Document:
        found = lookup.find_migration(context, reading.reference(request))
        return cli.migration_document(decide(context, found.id, request.actor))

    return work


def pause(context: Context, request: ApiRequest) -> Document:
    """Let no migration begin."""
    said = reading.body(request, "for", "reason")
    length = times.duration("for", reading.text(said, "for")) if "for" in said else None
    migrations.pause(context, request.actor, length, http.reason(said["reason"]) if "reason" in said else None)
    page = migrations.list_migrations(context, limit=1)
    return {"pause": cli.pause_document(page.pause) if page.pause else None}


def resume(context: Context, request: ApiRequest) -> Document:
    """Let containers be moved again."""
    was_paused, lifted = migrations.resume(context, request.actor)
    return {"wasPaused": was_paused, "lifted": [cli.mass_failure_document(failure) for failure in lifted]}


def policies(context: Context, _request: ApiRequest) -> Document:
    """List what each organization wants when a worker fails."""
    rows = [cli.organization_document(each) for each in migrations.policies(context)]
    return {"organizations": rows, "total": len(rows)}


def policy(context: Context, request: ApiRequest) -> Document:
    """Show what an organization wants."""
    return cli.organization_document(services.organization(context, reading.reference(request)))


def set_policy(context: Context, request: ApiRequest) -> Document:
    """Set what an organization wants when a worker fails."""
    said = reading.body(request, "policy")
    wanted = reading.choice("policy", said.get("policy"), MigrationPolicy)
    found = services.organization(context, reading.reference(request))
    migrations.set_policy(context, found, wanted, request.actor)
    return cli.organization_document(found) | {"policy": wanted.value}


ONE = "/api/migrations/{reference}"
DECISIONS = (
    ("approve", "Let a migration go on that waits for approval, or is held", migrations.approve),
    ("reject", "Let a container stay that waits for approval, or is held", migrations.reject),
    ("retry", "Try a failed migration again at once, with all its attempts", migrations.retry),
    ("cancel", "Let a container stay, or go back to where it was", migrations.cancel),
)
ROUTES = (
    Route(
        "GET",
        "/api/migrations",
        Role.VIEWER,
        "Migrations, the unfinished ones first, and what holds them all",
        list_migrations,
        json_object(
            migrations=many(reference("Migration")),
            total=COUNT,
            readAt=TIME,
            pause=maybe(OBJECT),
            engineTrouble=MAYBE_TEXT,
        ),
        query=(
            parameter("state", TEXT, f"{reading.SEVERAL}: {', '.join(MigrationState)}"),
            reading.WORKER,
            reading.sort_by(MigrationOrder.FINISHED),
            *reading.PAGE,
        ),
    ),
    Route(
        "GET",
        ONE,
        Role.VIEWER,
        "A migration, and what happened to it",
        show,
        {"allOf": [reference("Migration"), json_object(readAt=TIME, events=many(reference("Event")))]},
    ),
    *(
        Route("POST", f"{ONE}/{verb}", Role.OPERATOR, summary, decides(decide), reference("Migration"), may_refuse=True)
        for verb, summary, decide in DECISIONS
    ),
    Route(
        "POST",
        "/api/migrations/pause",
        Role.OPERATOR,
        "Let no migration begin; what is under way goes on",
        pause,
        json_object(pause=maybe(OBJECT)),
        body=reading.object_of(
            "for",
            "reason",
            **{"for": TEXT | {"description": "how long, such as 30m or 2h; else until it is resumed"}},
            reason=NAME | {"maxLength": LONGEST_REASON},
        ),
    ),
    Route(
        "POST",
        "/api/migrations/resume",
        Role.OPERATOR,
        "End a pause, and move containers that are held since many workers failed at once",
        resume,
        json_object(wasPaused=FLAG, lifted=many(OBJECT)),
    ),
    Route(
        "GET",
        "/api/organizations",
        Role.VIEWER,
        "What each organization wants when a worker fails",
        policies,
        json_object(organizations=many(reference("Organization")), total=COUNT),
    ),
    Route(
        "GET",
        "/api/organizations/{reference}",
        Role.VIEWER,
        "What one of them wants",
        policy,
        reference("Organization"),
    ),
    Route(
        "PUT",
        "/api/organizations/{reference}/policy",
        Role.OPERATOR,
        "Set that, from the next failure on",
        set_policy,
        reference("Organization"),
        body=reading.object_of(policy=one_of(MigrationPolicy)),
    ),
)
