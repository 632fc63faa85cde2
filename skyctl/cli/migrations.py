"""skyctl migrations ..."""

import sys
from typing import Annotated

import typer

from skyctl.cli.context import actor, confirm, group, open_world, say

app = typer.Typer(help="Containers on their way from one worker to another.", rich_markup_mode=None)
group(app)


@app.command("resume")
def resume(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let containers be moved automatically again after many workers fell silent at once."""
    from skyctl.operations import migrations

    with open_world(context) as world:
        confirm("Move containers off all workers that fell silent at once?", yes=yes)
        was_paused, lifted = migrations.resume(world, actor())
    if was_paused:
        sys.stdout.write("the pause is over\n")
    elif not lifted:
        say(context, "nothing is held")
    for failure in lifted:
        where = f" of region {failure.region}" if failure.region else ""
        sys.stdout.write(f"resumed for {failure.silent} workers{where}\n")
