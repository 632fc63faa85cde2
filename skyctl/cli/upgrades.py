"""skyctl workers upgrade: offering workers the manager's own agent."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyctl.cli import desk, way
from skyctl.cli.arguments import DryRunOption, complete_worker
from skyctl.cli.context import Output, OutputOption, emit, options
from skyctl.domain.errors import ExitCode, ValidationError
from skyctl.domain.states import Upgrade
from skyctl.domain.text import printable

if TYPE_CHECKING:
    from skyctl.documents.http import Document


def upgrade(
    ctx: typer.Context,
    workers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORKER", help="Ids, unique beginnings of them, or names.", autocompletion=complete_worker
        ),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All workers.")] = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Offer workers the agent of this version.

    Each takes it with its next heartbeat, and goes back by itself if the new one does not beat; `skyctl events` tells.
    Nothing is offered unless this is called. Exit code 4 or 7 where some or all cannot replace their agent.
    """

    if everyone == bool(workers):
        raise ValidationError("give either WORKER or --all", "such as `skyctl workers upgrade web-1`")
    which: dict[str, Any] = {"all": True} if everyone else {"workers": workers}
    way.prefer_database(ctx)  # whose caller has the key of releases
    with desk.open_desk(ctx) as at:
        document = at.ask("POST /api/upgrades", body=which | {"dryRun": dry_run})["data"]
    outcomes = document["workers"]
    if output.is_table:
        if not options(ctx).quiet:
            told = "".join(_line(upgraded, document["release"], dry_run=dry_run) for upgraded in outcomes)
            sys.stdout.write(told or "No workers.\n")
    else:
        emit(ctx, output, document, list, [upgraded["name"] for upgraded in outcomes])
    impossible = [upgraded for upgraded in outcomes if upgraded["outcome"] == Upgrade.IMPOSSIBLE]
    if impossible:
        raise typer.Exit(ExitCode.REFUSED if len(impossible) == len(outcomes) else ExitCode.PARTLY_DONE)


def _line(upgraded: "Document", release: str, *, dry_run: bool) -> str:

    name = printable(upgraded["name"])
    if upgraded["outcome"] == Upgrade.OFFERED:
        return f"{name}: {'would be ' if dry_run else ''}offered agent {release}\n"
    if upgraded["outcome"] == Upgrade.UP_TO_DATE:
        return f"{name}: up to date\n"
    return f"{name}: {printable(upgraded['reason'])}\n"
