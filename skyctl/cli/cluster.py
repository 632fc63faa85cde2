"""skyctl cluster ..."""

import os
import sys

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, console, emit, group, open_context
from skyctl.operations import admin

PAGE_ROWS = 20

app = typer.Typer(help="The cluster as a whole.", rich_markup_mode=None)
group(app)


@app.command("stats")
def stats(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Workers by status, capacity, load and containers."""

    with open_context(ctx) as context:
        figures = admin.workers.stats(context)

    emit(ctx, output, documents.http.stats_document(figures), lambda: views.workers.stats_tables(figures), [])


@app.command("top")
def top(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Watch the cluster on the whole screen: figures, the workers that need a look, the last events. `q` quits.

    Without a terminal, or with -o json or yaml, it is told once.
    """

    with open_context(ctx) as context:
        if (
            output in (Output.TABLE, Output.WIDE)
            and sys.stdout.isatty()
            and os.environ.get("TERM") not in (None, "dumb")
        ):
            from skyctl.cli import top  # here, since it loads what draws a screen

            top.show(context, console(ctx))
            return
        overview = admin.overview.overview(context, PAGE_ROWS)

    names = [worker.name for worker in overview.worst]
    emit(ctx, output, documents.cli.overview_document(overview), lambda: views.top.page(overview), names)
