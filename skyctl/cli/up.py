"""skyctl up: everything in one terminal."""

import typer

from skyctl.cli.context import console, options, settings


def up(ctx: typer.Context) -> None:
    """Run everything in the foreground: database, API, monitor, and this machine as the first worker.

    Without a database URL the embedded PostgreSQL is used. Ctrl-C stops all of it.
    """
    from skyctl.cli.supervisor import Supervisor  # here, since it loads every part of the program

    Supervisor(settings(ctx), console(ctx, stderr=True), options(ctx).config).run()
