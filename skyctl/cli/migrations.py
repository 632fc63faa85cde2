"""skyctl migrations ..."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import desk, listing, views
from skyctl.cli.arguments import WorkersOption, YesOption
from skyctl.cli.context import Output, OutputOption, confirm, emit, group, info, options
from skyctl.domain.errors import ExitCode, SkyctlError, ValidationError
from skyctl.domain.states import MigrationOrder, MigrationState
from skyctl.domain.text import printable

if TYPE_CHECKING:
    from skyctl.documents.http import Document

app = typer.Typer(rich_markup_mode=None)
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
    state: Annotated[list[str] | None, listing.filter_option("--state", MigrationState, "those in this state")] = None,
    worker: WorkersOption = None,
    sort_by: Annotated[
        MigrationOrder, typer.Option(help="Names and states from the first, times from the latest.")
    ] = MigrationOrder.FINISHED,
    limit: listing.LimitOption = None,
    offset: listing.OffsetOption = 0,
    watch: listing.WatchOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List migrations, the unfinished ones first.

    Each tells why it is not further; below stands what holds them all.
    """

    query: dict[str, str | int | None] = {
        "state": listing.joined(listing.chosen("--state", state, MigrationState)),
        "worker": listing.joined(listing.words(worker)),
        "sortBy": sort_by,
    }

    def read(at: desk.Desk) -> listing.Listed:
        size = listing.size(limit, output)
        document = desk.page(at, "GET /api/migrations", "migrations", query, offset, size)
        return listing.Listed(
            document,
            lambda: views.workloads.migration_table(document, offset),
            [migration["id"] for migration in document["migrations"]],
            views.workloads.pause_note(document),
        )

    with desk.open_desk(ctx) as at:
        listing.show(ctx, at, output, lambda: read(at), watch=watch)


@app.command("show")
def show_migration(ctx: typer.Context, migration: MigrationArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything about one migration, and what happened to it."""

    with desk.open_desk(ctx) as at:
        document = at.ask("GET /api/migrations/{reference}", reference=migration)["data"]

    emit(ctx, output, document, lambda: views.workloads.migration_details(document), [document["id"]])


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
    with desk.open_desk(ctx) as at:
        if every:
            query = {"state": MigrationState.AWAITING_APPROVAL}
            migrations = desk.page(at, "GET /api/migrations", "migrations", query, 0, None)["migrations"]
            if not migrations:
                info(ctx, "no migration waits for approval")
        else:
            migrations = _migrations(at, migration or [])
        _decide(ctx, at, migrations, "approve", "goes on")


@app.command("reject")
def reject(ctx: typer.Context, migration: MigrationsArgument) -> None:
    """Let containers stay that wait for approval, or are held."""

    with desk.open_desk(ctx) as at:
        _decide(ctx, at, _migrations(at, migration), "reject", "stays where it is")


@app.command("retry")
def retry(ctx: typer.Context, migration: MigrationsArgument) -> None:
    """Try failed migrations again at once, with all their attempts."""

    with desk.open_desk(ctx) as at:
        _decide(ctx, at, _migrations(at, migration), "retry", "is tried again")


@app.command("cancel")
def cancel(ctx: typer.Context, migration: MigrationsArgument) -> None:
    """Let containers stay, or go back to where they were.

    What has not started is cancelled; what is under way is rolled back, unless it completes before that. What the swarm
    moves by itself goes on, and is no longer watched.
    """

    with desk.open_desk(ctx) as at:
        _decide(ctx, at, _migrations(at, migration), "cancel", "is cancelled")


@app.command("pause")
def pause(
    ctx: typer.Context,
    length: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long, such as 30m or 2h; else until `resume`.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; `migrations list` tells it.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", hidden=True)] = None,  # its name up to 0.2
) -> None:
    """Let no migration begin; what is under way goes on."""

    if length is not None:
        documents.times.duration("--for", length)
    if reason is not None and message is not None:
        raise ValidationError("--reason and --message are the same", "give --reason alone")
    given, option = (reason, "--reason") if message is None else (message, "--message")
    body = {} if length is None else {"for": length}
    body |= {} if given is None else {"reason": documents.http.reason(given, option)}
    with desk.open_desk(ctx) as at:
        at.ask("POST /api/migrations/pause", body=body)
    sys.stdout.write(f"paused {'until `skyctl migrations resume`' if length is None else f'for {length.strip()}'}\n")


@app.command("resume")
def resume(ctx: typer.Context, yes: YesOption = False) -> None:
    """Let containers be moved again.

    It ends a pause, and lets those be moved that are held since many workers failed at once.
    """

    with desk.open_desk(ctx) as at:
        confirm("Move containers again, also off all workers that failed at once?", yes=yes)
        outcome = at.ask("POST /api/migrations/resume")["data"]
    if outcome["wasPaused"]:
        sys.stdout.write("the pause is over\n")
    elif not outcome["lifted"]:
        info(ctx, "nothing is held")
    for failure in outcome["lifted"]:
        where = f" of region {printable(failure['region'])}" if failure["region"] else ""
        sys.stdout.write(f"resumed for {failure['silent']} workers{where}\n")


def _migrations(at: desk.Desk, references: list[str]) -> "list[Document]":
    """Return the migrations of these references, each once. Raises an error where one is not found."""
    found = [at.ask("GET /api/migrations/{reference}", reference=reference)["data"] for reference in references]
    return list({migration["id"]: migration for migration in found}.values())


def _decide(ctx: typer.Context, at: desk.Desk, migrations: "list[Document]", verb: str, outcome: str) -> None:
    """Decide about each migration, and print `outcome` after its name.

    A refusal is printed and the others go on. Raises the refusal where there is only one migration, Exit where some of
    several were refused.
    """

    applied = 0
    for migration in migrations:
        try:
            at.ask(f"POST /api/migrations/{{reference}}/{verb}", reference=migration["id"])
        except SkyctlError as error:
            if len(migrations) == 1 or error.exit_code is not ExitCode.REFUSED:
                raise
            sys.stderr.write(f"error: {printable(error.message)}\n")
            continue
        applied += 1
        if not options(ctx).quiet:
            sys.stdout.write(f"{printable(migration['serviceName'])} ({migration['id'][:8]}) {outcome}\n")
    if applied < len(migrations):
        sys.stderr.write("hint: see `skyctl migrations list`\n")
        raise typer.Exit(ExitCode.PARTLY_DONE if applied else ExitCode.REFUSED)
