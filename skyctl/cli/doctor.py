"""skyctl doctor: whether everything works that has to."""

from typing import TYPE_CHECKING

import typer

from skyctl import documents
from skyctl.cli import desk, views, way
from skyctl.cli.context import Output, OutputOption, emit, settings
from skyctl.domain.errors import ExitCode
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.documents.http import Document


def doctor(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Look at everything that has to work, and say what to do about what does not.

    By a context the monitor there looks at its host. Exit code 0 when nothing failed, 1 otherwise; warnings do not
    count.
    """
    at_manager = way.chosen(ctx).kind is way.Kind.CONTEXT
    document = _at_manager(ctx) if at_manager else _here(ctx)
    emit(
        ctx,
        output,
        document,
        lambda: views.doctor.check_table(document),
        [check["name"] for check in document["checks"]],
    )
    if not document["healthy"]:
        raise typer.Exit(ExitCode.UNEXPECTED)


def _at_manager(ctx: typer.Context) -> "Document":
    with desk.open_desk(ctx) as at:
        found: Document = at.ask("GET /api/doctor")["data"]
    return found


def _here(ctx: typer.Context) -> "Document":
    """Examine what the settings name, in this process: the database may be what does not answer."""
    from skyctl import wiring  # here, since `--help` does without the database's driver

    checks = admin.doctor.examine(wiring.doctor_inputs(settings(ctx)))
    return documents.installation.checkup_document(checks, healthy=admin.doctor.is_healthy(checks))
