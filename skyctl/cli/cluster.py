"""skyctl cluster ..."""

import os
import sys

import typer

from skyctl.cli.context import Output, OutputOption, console, emit, group, open_world

PAGE_ROWS = 20

app = typer.Typer(help="The cluster as a whole.", rich_markup_mode=None)
group(app)


@app.command("stats")
def stats(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Workers by status, capacity, load and containers."""
    from skyctl.documents import http
    from skyctl.operations.admin import workers

    with open_world(context) as world:
        figures = workers.stats(world)
    from skyctl.cli.views import workers as workers_views

    emit(context, output, http.stats_document(figures), lambda: workers_views.stats_tables(figures), [])


@app.command("top")
def top(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Watch the cluster on the whole screen: figures, the workers that need a look, the last events. `q` quits.

    Without a terminal, or with -o json or yaml, it is told once.
    """
    from skyctl import documents
    from skyctl.operations.admin import overview

    with open_world(context) as world:
        if (
            output in (Output.TABLE, Output.WIDE)
            and sys.stdout.isatty()
            and os.environ.get("TERM") not in (None, "dumb")
        ):
            from skyctl.cli import top

            top.show(world, console(context))
            return
        seen = overview.overview(world, PAGE_ROWS)
    from skyctl.cli.views import top as top_views

    names = [worker.name for worker in seen.worst]
    emit(context, output, documents.cli.overview_document(seen), lambda: top_views.page(seen), names)
