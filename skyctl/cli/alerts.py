"""skyctl alerts ..."""

from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, emit, emit_one, group, open_world, say
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.domain.cluster import Alert

app = typer.Typer(help="What people were told, and by which channels.", rich_markup_mode=None)
group(app)


@app.command("list")
def list_alerts(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Alerts to show.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the last alerts, and whether the channels took them."""

    with open_world(context) as world:
        found, now = admin.alerts.latest(world, limit)

    counts = ("delivered", "waiting", "givenUp")
    rows = [
        documents.cli.alert_document(alert) | {"deliveries": dict(zip(counts, numbers, strict=True))}
        for alert, *numbers in found
    ]
    names = [str(alert.id) for alert, *_ in found]
    emit(context, output, {"alerts": rows}, lambda: views.workers.alert_table(found, now), names)


@app.command("follow")
def follow(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show the last alert and what comes, until Ctrl-C; json is one document a line."""
    from skyctl.cli.following import follow as follow_log

    with open_world(context) as world:
        follow_log(
            context,
            lambda: admin.events.listening(world, to_alerts=True),
            lambda last: admin.alerts.since(world, last),
            lambda alert: alert.id,
            None,
            lambda alert: _show(context, output, alert),
        )


@app.command("test")
def test(
    context: typer.Context,
    message: Annotated[str, typer.Option(help="The text to send.")] = "If you read this, alerts arrive.",
    output: OutputOption = Output.TABLE,
) -> None:
    """Send a test by every channel of SKYCTL_ALERT_CHANNELS: exit code 7 when some did not take it, 5 when none did."""

    with open_world(context) as world:
        results = admin.alerts.try_channels(world, message)
    if not results:
        say(context, "no channels: set SKYCTL_ALERT_CHANNELS; administrators see alerts in the panel all the same")
        return

    document = {"channels": [{"channel": channel, "error": trouble or None} for channel, trouble in results.items()]}
    emit(context, output, document, lambda: views.workers.channel_table(results), list(results))
    failed = sum(1 for trouble in results.values() if trouble)
    if failed:
        raise typer.Exit(5 if failed == len(results) else 7)


def _show(context: typer.Context, output: Output, alert: "Alert") -> None:

    emit_one(
        context, output, documents.cli.alert_document(alert), lambda: views.workers.alert_line(alert), str(alert.id)
    )
