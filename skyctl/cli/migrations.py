"""skyctl migrations ..."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.arguments import LimitOption, OffsetOption, WorkerOption, YesOption
from skyctl.cli.context import Output, OutputOption, actor, confirm, emit, group, info, open_context, options
from skyctl.domain.errors import ExitCode, Refused, ValidationError
from skyctl.domain.states import MigrationState
from skyctl.domain.text import printable
from skyctl.operations import admin, shared

if TYPE_CHECKING:
    from uuid import UUID

    from skyctl.domain.cluster import Actor
    from skyctl.domain.workloads import Migration
    from skyctl.operations.shared.context import Context

MOST_AT_ONCE = 100_000

app = typer.Typer(help="Containers on their way from one worker to another.", rich_markup_mode=None)
group(app)

MigrationArgument = Annotated[
    str,
    typer.Argument(metavar="MIGRATION", help="An id, a unique beginning of one, or a service that is to be moved."),
]
MigrationsArgument = Annotated[
    list[str],
    typer.Argument(metavar="MIGRATION", help="Ids, unique beginnings of them, or services that are to be moved."),
]


@app.command("list")
def list_migrations(
    ctx: typer.Context,
    state: Annotated[list[MigrationState] | None, typer.Option(help="Only those in this state; repeatable.")] = None,
    worker: WorkerOption = None,
    limit: LimitOption = 100,
    offset: OffsetOption = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """List migrations, the unfinished ones first.

    Each tells why it is not further; below stands what holds them all.
    """

    with open_context(ctx) as context:
        worker_id = shared.lookup.find_worker(context, worker).id if worker is not None else None
        page = admin.migrations.list_migrations(
            context, states=tuple(state or ()), worker_id=worker_id, limit=limit, offset=offset
        )

    names = [str(migration.id) for migration in page.migrations]
    emit(
        ctx,
        output,
        documents.cli.migrations_document(page),
        lambda: views.workloads.migration_table(page, offset),
        names,
    )
    for note in views.workloads.pause_note(page):
        info(ctx, note)


@app.command("show")
def show_migration(ctx: typer.Context, migration: MigrationArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything about one migration, and what happened to it."""

    with open_context(ctx) as context:
        record = shared.lookup.find_migration(context, migration)
        events, now = admin.migrations.history(context, record.id), admin.workers.read_at(context)

    document = documents.cli.migration_document(record)
    document["events"] = [documents.cli.event_document(event) for event in events]
    emit(ctx, output, document, lambda: views.workloads.migration_details(record, events, now), [str(record.id)])


@app.command("approve")
def approve(
    ctx: typer.Context,
    migration: Annotated[
        list[str] | None,
        typer.Argument(metavar="MIGRATION", help="Ids, unique beginnings of them, or services."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that wait for approval.")] = False,
) -> None:
    """Let migrations go on that wait for approval, or are held."""

    if every == bool(migration):
        raise ValidationError("MIGRATION or --all is missing, or both are given", "see `skyctl migrations list`")
    with open_context(ctx) as context:
        if every:
            waiting = (MigrationState.AWAITING_APPROVAL,)
            migrations = list(admin.migrations.list_migrations(context, states=waiting, limit=MOST_AT_ONCE).migrations)
            if not migrations:
                info(ctx, "no migration waits for approval")
        else:
            migrations = _migrations(context, migration or [])
        _apply(ctx, context, migrations, admin.migrations.approve, "goes on")


@app.command("reject")
def reject(ctx: typer.Context, migration: MigrationsArgument) -> None:
    """Let containers stay that wait for approval, or are held."""

    with open_context(ctx) as context:
        _apply(ctx, context, _migrations(context, migration), admin.migrations.reject, "stays where it is")


@app.command("retry")
def retry(ctx: typer.Context, migration: MigrationsArgument) -> None:
    """Try failed migrations again at once, with all their attempts."""

    with open_context(ctx) as context:
        _apply(ctx, context, _migrations(context, migration), admin.migrations.retry, "is tried again")


@app.command("cancel")
def cancel(ctx: typer.Context, migration: MigrationsArgument) -> None:
    """Let containers stay, or go back to where they were.

    What has not started is cancelled; what is under way is rolled back, unless it completes before that.
    """

    with open_context(ctx) as context:
        _apply(ctx, context, _migrations(context, migration), admin.migrations.cancel, "is cancelled")


@app.command("pause")
def pause(
    ctx: typer.Context,
    length: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long, such as 30m or 2h; else until `resume`.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Why; `migrations list` tells it.")] = None,
) -> None:
    """Let no migration begin; what is under way goes on."""

    wanted = None if length is None else documents.http.duration("--for", length)
    why = None if message is None else documents.http.reason(message, "--message")
    with open_context(ctx) as context:
        admin.migrations.pause(context, actor(), wanted, why)
    sys.stdout.write(f"paused {'until `skyctl migrations resume`' if length is None else f'for {length.strip()}'}\n")


@app.command("resume")
def resume(ctx: typer.Context, yes: YesOption = False) -> None:
    """Let containers be moved again.

    It ends a pause, and lets those be moved that are held since many workers failed at once.
    """

    with open_context(ctx) as context:
        confirm("Move containers again, also off all workers that failed at once?", yes=yes)
        was_paused, lifted = admin.migrations.resume(context, actor())
    if was_paused:
        sys.stdout.write("the pause is over\n")
    elif not lifted:
        info(ctx, "nothing is held")
    for failure in lifted:
        where = f" of region {printable(failure.region)}" if failure.region else ""
        sys.stdout.write(f"resumed for {failure.silent} workers{where}\n")


def _migrations(context: "Context", references: list[str]) -> "list[Migration]":
    """Return the migrations of these references, each once. Raises an error where one is not found."""

    migrations = (shared.lookup.find_migration(context, reference) for reference in references)
    return list({migration.id: migration for migration in migrations}.values())


def _apply(
    ctx: typer.Context,
    context: "Context",
    migrations: "list[Migration]",
    operation: "Callable[[Context, UUID, Actor], Migration]",
    outcome: str,
) -> None:
    """Apply an operation to each migration, and print `outcome` after its name.

    A refusal is printed and the others go on. Raises Refused where there is only one migration, Exit where some of
    several were refused.
    """

    applied = 0
    for migration in migrations:
        try:
            operation(context, migration.id, actor())
        except Refused as error:
            if len(migrations) == 1:
                raise
            sys.stderr.write(f"error: {printable(error.message)}\n")
            continue
        applied += 1
        if not options(ctx).quiet:
            sys.stdout.write(f"{printable(migration.service_name)} ({str(migration.id)[:8]}) {outcome}\n")
    if applied < len(migrations):
        sys.stderr.write("hint: see `skyctl migrations list`\n")
        raise typer.Exit(ExitCode.PARTLY_DONE if applied else ExitCode.REFUSED)
