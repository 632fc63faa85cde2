"""skyctl doctor: whether everything works that has to."""

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, emit, settings
from skyctl.domain.errors import ExitCode
from skyctl.operations import admin


def doctor(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Look at everything that has to work, and say what to do about what does not.

    Exit code 0 when nothing failed, 1 otherwise; warnings do not count.
    """
    from skyctl import wiring  # here, since `--help` does without the database's driver

    checks = admin.doctor.examine(wiring.doctor_inputs(settings(ctx)))
    healthy = admin.doctor.is_healthy(checks)

    document = documents.installation.checkup_document(checks, healthy=healthy)
    emit(ctx, output, document, lambda: views.doctor.check_table(document), [check.name for check in checks])
    if not healthy:
        raise typer.Exit(ExitCode.UNEXPECTED)
