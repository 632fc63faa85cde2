"""skyctl alerts ..."""

from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import follow as log
from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, emit, emit_one, group, info, open_context
from skyctl.domain.errors import ExitCode
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.domain.cluster import Alert

app = typer.Typer(help="What people were told, and by which channels.", rich_markup_mode=None)
group(app)


@app.command("list")
def list_alerts(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Alerts to show.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the last alerts, and whether the channels took them."""

    with open_context(ctx) as context:
        alerts, now = admin.alerts.latest(context, limit)

    counts = ("delivered", "waiting", "givenUp")
    rows = [
        documents.cli.alert_document(alert) | {"deliveries": dict(zip(counts, numbers, strict=True))}
        for alert, *numbers in alerts
    ]
    names = [str(alert.id) for alert, *_ in alerts]
    emit(ctx, output, {"alerts": rows}, lambda: views.events.alert_table(alerts, now), names)


@app.command("follow")
def follow(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show the last alert and what comes, until Ctrl-C; json is one document a line."""
    with open_context(ctx) as context:
        log.follow(
            ctx,
            lambda: admin.events.listening(context, to_alerts=True),
            lambda last: admin.alerts.since(context, last),
            lambda alert: alert.id,
            None,
            lambda alert: _show(ctx, output, alert),
        )


@app.command("test")
def test(
    ctx: typer.Context,
    message: Annotated[str, typer.Option(help="The text to send.")] = "If you read this, alerts arrive.",
    output: OutputOption = Output.TABLE,
) -> None:
    """Send a test by every channel of SKYCTL_ALERT_CHANNELS: exit code 7 when some did not take it, 5 when none did."""

    with open_context(ctx) as context:
        results = admin.alerts.try_channels(context, message)
    if not results:
        info(ctx, "no channels: set SKYCTL_ALERT_CHANNELS; administrators see alerts in the panel all the same")
        return

    document = {"channels": [{"channel": channel, "error": trouble or None} for channel, trouble in results.items()]}
    emit(ctx, output, document, lambda: views.events.channel_table(results), list(results))
    failed = sum(1 for trouble in results.values() if trouble)
    if failed:
        raise typer.Exit(ExitCode.UNREACHABLE if failed == len(results) else ExitCode.PARTLY_DONE)


def _show(ctx: typer.Context, output: Output, alert: "Alert") -> None:

    emit_one(ctx, output, documents.cli.alert_document(alert), lambda: views.events.alert_line(alert), str(alert.id))
