"""skyctl cluster ..."""

import typer

from skyctl.cli.context import Output, OutputOption, emit, group, open_world

app = typer.Typer(help="The cluster as a whole.", rich_markup_mode=None)
group(app)


@app.command("stats")
def stats(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Workers by status, capacity, load and containers."""
    from skyctl import wire
    from skyctl.operations import workers

    with open_world(context) as world:
        figures = workers.stats(world)
    from skyctl.cli import show

    emit(context, output, wire.stats_document(figures), lambda: show.stats_tables(figures), [])
