"""skyctl db ..."""

from typing import TYPE_CHECKING

import typer

from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, emit, group, info, open_context
from skyctl.domain.errors import ExitCode
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.operations.admin.schema import SchemaState

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("init")
def init(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Make or upgrade the schema; what is there already stays. May be run any number of times.

    Without a database URL the embedded database is made where the data folder has none, as by `skyctl up`.
    """

    with open_context(ctx, make=True) as context:
        state = admin.schema.initialize(context)
    _show_schema(ctx, output, state)


@app.command("check")
def check(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """See whether the schema is complete: exit code 0 when it is, 1 when `skyctl db init` is needed."""

    with open_context(ctx) as context:
        state = admin.schema.check(context)
    _show_schema(ctx, output, state)
    if not state.complete:
        info(ctx, "hint: run `skyctl db init`")
        raise typer.Exit(ExitCode.UNEXPECTED)


def _show_schema(ctx: typer.Context, output: Output, state: "SchemaState") -> None:

    document = {
        "version": state.version,
        "expectedVersion": state.expected,
        "pendingUpgrade": state.pending_upgrade,
        "missing": list(state.missing),
        "complete": state.complete,
    }
    emit(ctx, output, document, lambda: views.doctor.schema_table(document), [])
