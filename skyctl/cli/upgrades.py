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
        seen = agents.upgrades.upgrade(context, actor(), only, dry_run=dry_run)
    if output is Output.TABLE or output is Output.WIDE:
        if not options(ctx).quiet:
            sys.stdout.write("".join(_line(each, dry_run=dry_run) for each in seen) or "No workers.\n")
    else:
        emit(ctx, output, {"workers": [_document(each) for each in seen]}, list, [each.worker.name for each in seen])
    impossible = [each for each in seen if each.outcome is agents.upgrades.Upgrade.IMPOSSIBLE]
    if impossible:
        raise typer.Exit(ExitCode.REFUSED if len(impossible) == len(seen) else ExitCode.PARTLY_DONE)


def _line(each: "Upgraded", *, dry_run: bool) -> str:

    name = printable(each.worker.name)
    if each.outcome is agents.upgrades.Upgrade.OFFERED:
        return f"{name}: {'would be ' if dry_run else ''}offered agent {agents.upgrades.release()}\n"
    return (
        f"{name}: {'up to date' if each.outcome is agents.upgrades.Upgrade.UP_TO_DATE else printable(_reason(each))}\n"
    )


def _reason(each: "Upgraded") -> str:
    return each.reason if each.worker.hostname else "it has not joined yet"


def _document(each: "Upgraded") -> dict[str, str]:
    return {
        "id": str(each.worker.id),
        "name": each.worker.name,
        "outcome": each.outcome.value,
        "reason": _reason(each) if each.reason else "",
    }
