"""skyctl workers upgrade: offering workers the manager's own agent."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl.cli.arguments import DryRunOption, complete_worker
from skyctl.cli.context import Output, OutputOption, actor, emit, open_context, options
from skyctl.domain.errors import ExitCode, ValidationError
from skyctl.domain.text import printable
from skyctl.operations import agents, shared

if TYPE_CHECKING:
    from skyctl.operations.agents.upgrades import Upgraded


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
    with open_context(ctx) as context:
        only = None if everyone else [worker.id for worker in shared.lookup.find_workers(context, workers or [])]
        outcomes = agents.upgrades.upgrade(context, actor(), only, dry_run=dry_run)
    if output is Output.TABLE or output is Output.WIDE:
        if not options(ctx).quiet:
            sys.stdout.write("".join(_line(upgraded, dry_run=dry_run) for upgraded in outcomes) or "No workers.\n")
    else:
        emit(
            ctx,
            output,
            {"workers": [_document(upgraded) for upgraded in outcomes]},
            list,
            [upgraded.worker.name for upgraded in outcomes],
        )
    impossible = [upgraded for upgraded in outcomes if upgraded.outcome is agents.upgrades.Upgrade.IMPOSSIBLE]
    if impossible:
        raise typer.Exit(ExitCode.REFUSED if len(impossible) == len(outcomes) else ExitCode.PARTLY_DONE)


def _line(upgraded: "Upgraded", *, dry_run: bool) -> str:

    name = printable(upgraded.worker.name)
    if upgraded.outcome is agents.upgrades.Upgrade.OFFERED:
        return f"{name}: {'would be ' if dry_run else ''}offered agent {agents.upgrades.release()}\n"
    if upgraded.outcome is agents.upgrades.Upgrade.UP_TO_DATE:
        return f"{name}: up to date\n"
    return f"{name}: {printable(_reason(upgraded))}\n"


def _reason(upgraded: "Upgraded") -> str:
    return upgraded.reason if upgraded.worker.hostname else "it has not joined yet"


def _document(upgraded: "Upgraded") -> dict[str, str]:
    return {
        "id": str(upgraded.worker.id),
        "name": upgraded.worker.name,
        "outcome": upgraded.outcome.value,
        "reason": _reason(upgraded) if upgraded.reason else "",
    }
