"""skyctl alerts ..."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import desk, listing, views
from skyctl.cli import follow as log
from skyctl.cli.arguments import WorkersArgument
from skyctl.cli.context import Output, OutputOption, emit, emit_one, group, info, say
from skyctl.domain.errors import ExitCode
from skyctl.domain.text import printable

if TYPE_CHECKING:
    from skyctl.documents.http import Document

PAGE = 50

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("list")
def list_alerts(
    ctx: typer.Context,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, max=100_000, help=f"How many; else {PAGE}, and all with -o json, yaml or name."
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the last alerts, and whether the channels took them."""

    with desk.open_desk(ctx) as at:
        document = desk.last(at, "GET /api/alerts", "alerts", "id", {}, listing.size(limit, output, PAGE))

    names = [str(alert["id"]) for alert in document["alerts"]]
    emit(ctx, output, document, lambda: views.events.alert_table(document), names)
    for worker in document["silenced"]:
        info(ctx, f"note: {_silenced(worker)}")


@app.command("follow")
def follow(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show the last alert and what comes, until Ctrl-C; json is one document a line."""
    with desk.open_desk(ctx) as at:

        def read(last: int | None) -> "list[Document]":
            query = {"limit": 1} if last is None else {"since": last}
            found: list[Document] = at.ask("GET /api/alerts", query)["data"]["alerts"]
            return found

        def show(alert: "Document") -> None:
            document = {key: value for key, value in alert.items() if key != "deliveries"}  # which are still to come
            emit_one(ctx, output, document, lambda: views.events.alert_line(document), str(alert["id"]))

        log.follow(ctx, partial(at.listening, to_alerts=True), read, lambda alert: int(alert["id"]), None, show)


@app.command("silence")
def silence(
    ctx: typer.Context,
    workers: WorkersArgument,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 30m or 2h.")],
    reason: Annotated[str | None, typer.Option(help="Why; `alerts list` and `workers show` tell it.")] = None,
) -> None:
    """Hold alerts of workers' health back from the channels for a time.

    Alerts and events are written down as ever. At the end the channels are told what is still so; of what is over by
    then they hear nothing. Alerts of many workers at once, of services, of copies of a worker's disk are not held back.
    Given again, the new time counts from now.
    """

    documents.times.duration("--for", length)
    body = {"for": length} | desk.reason(reason)
    with desk.open_desk(ctx) as at:
        for worker in desk.workers(at, workers):
            silenced = at.ask("POST /api/workers/{id}/silence", body=body, id=worker["id"])["data"]
            say(ctx, _silenced(silenced))


@app.command("unsilence")
def unsilence(ctx: typer.Context, workers: WorkersArgument) -> None:
    """Send alerts of workers' health by the channels again; those that were held back go now."""

    with desk.open_desk(ctx) as at:
        for worker in desk.workers(at, workers):
            name = printable(worker["name"])
            if at.ask("POST /api/workers/{id}/unsilence", id=worker["id"])["data"]["changed"]:
                say(ctx, f"alerts of {name} are sent again")
            else:
                info(ctx, f"alerts of {name} are not silenced: nothing to do")


@app.command("test")
def test(
    ctx: typer.Context,
    message: Annotated[str, typer.Option(help="The text to send.")] = "If you read this, alerts arrive.",
    output: OutputOption = Output.TABLE,
) -> None:
    """Send a test by every channel of SKYCTL_ALERT_CHANNELS, numbered as there, and say why one did not take it.

    Exit code 7 when some did not take it, 5 when none did.
    """

    with desk.open_desk(ctx) as at:
        document = at.ask("POST /api/alerts/test", body={"message": documents.http.message(message, "--message")})[
            "data"
        ]
    channels = document["channels"]
    if not channels:
        info(ctx, "no channels: set SKYCTL_ALERT_CHANNELS; administrators see alerts in the panel all the same")
        return

    emit(ctx, output, document, lambda: views.events.channel_table(document), [each["channel"] for each in channels])
    failed = sum(1 for each in channels if each["error"])
    if failed:
        raise typer.Exit(ExitCode.UNREACHABLE if failed == len(channels) else ExitCode.PARTLY_DONE)


def _silenced(worker: "Document") -> str:
    """Return until when the alerts of a silenced worker are held back, and why."""
    reason, until = worker["alertsSilencedReason"], views.formats.stamp(worker["alertsSilencedUntil"])
    why = f": {printable(reason)}" if reason else ""
    return f"alerts of {printable(worker['name'])} are silenced until {until}{why}"
