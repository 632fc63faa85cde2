"""skyctl cluster ..."""

import os
import sys

import typer

from skyctl.cli import desk, views
from skyctl.cli.context import Output, OutputOption, console, emit, group, info

PAGE_ROWS = 20

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("stats")
def stats(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Workers by status, capacity, load and containers."""

    with desk.open_desk(ctx) as at:
        document = at.ask("GET /api/cluster/stats")["data"]

    emit(ctx, output, document, lambda: views.workers.stats_tables(document), [])
    if document["sampledWorkers"] is not None:
        info(
            ctx, f"note: capacity, load and containers are estimated from {document['sampledWorkers']} of these workers"
        )


@app.command("top")
def top(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Watch the cluster on the whole screen: figures, the workers that need a look, the last events. `q` quits.

    Without a terminal, or with -o json or yaml, it is told once.
    """

    with desk.open_desk(ctx) as at:
        if output.is_table and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb"):
            from skyctl.cli import top  # here, since it loads what draws a screen

            top.show(at, console(ctx))
            return
        document = desk.overview(at, PAGE_ROWS)

    names = [worker["name"] for worker in document["worst"]]
    emit(ctx, output, document, lambda: views.top.page(document), names)
