"""Events and alerts as they are printed. No I/O."""

from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.documents.http import Document
from skyctl.domain.text import printable


def event_lines(log: Document) -> list[Text]:
    """The events of a part of the log, one a line."""
    return [event_line(event) for event in log["events"]]


def event_line(event: Document) -> Text:
    """An event in one line."""
    change = Text()
    if event["toStatus"]:
        before = Text.assemble(formats.status_text(event["fromStatus"]), " to ") if event["fromStatus"] else Text()
        change = Text.assemble(" ", before, formats.status_text(event["toStatus"]))
    who = f" {printable(event['workerName'])}" if event["workerName"] else ""
    reason = f": {printable(event['reason'])}" if event["reason"] else ""
    by = f" ({printable(event['actor'])}" + (f", term {event['term']})" if event["term"] else ")")
    number = (f"{event['seq']:>6} {formats.stamp(event['at'])} ", "dim")
    return Text.assemble(number, (printable(event["kind"]), "bold"), who, change, reason, (by, "dim"))


def alert_line(alert: Document) -> Text:
    """An alert in one line."""
    number = (f"{alert['id']:>6} {formats.stamp(alert['at'])} ", "dim")
    return Text.assemble(number, (f"{printable(alert['kind'])} ", "bold"), printable(alert["message"]))


def alert_table(document: Document) -> list[Any]:
    """Alerts, each with how many channels took it, have it waiting, or will not get it."""
    alerts, now = document["alerts"], document["readAt"]
    if not alerts:
        return [Text("No alerts.")]
    table = formats.plain_table("ID", "RAISED", "ALERT", "CHANNELS", "MESSAGE", bars=(4,))
    for alert in alerts:
        made = alert["deliveries"]
        counts = (("delivered", "delivered", "green"), ("waiting", "waiting", "yellow"), ("givenUp", "given up", "red"))
        deliveries = Text(", ").join(
            Text(f"{made[field]} {what}", style=color) for field, what, color in counts if made[field]
        )
        raised, kind = formats.ago(alert["at"], now), printable(alert["kind"])
        table.add_row(str(alert["id"]), raised, kind, deliveries or "-", printable(alert["message"]))
    return [table]


def channel_table(document: Document) -> list[Any]:
    """The result of a test by each channel, numbered as they stand in the settings."""
    table = formats.plain_table("NO.", "CHANNEL", "RESULT", bars=(2,))
    for number, tried in enumerate(document["channels"], 1):
        error = tried["error"]
        result = Text(printable(error), style="red") if error else Text("delivered", style="green")
        table.add_row(str(number), printable(tried["channel"]), result)
    return [table]
