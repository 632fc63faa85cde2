"""Events and alerts as they are printed. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.domain.cluster import Alert, Event
from skyctl.domain.text import printable


def event_line(event: Event) -> Text:
    """An event in one line."""
    change = Text()
    if event.to_status:
        before = Text.assemble(formats.status_text(event.from_status), " to ") if event.from_status else Text()
        change = Text.assemble(" ", before, formats.status_text(event.to_status))
    who = f" {printable(event.worker_name)}" if event.worker_name else ""
    reason = f": {printable(event.reason)}" if event.reason else ""
    by = f" ({printable(event.actor)}" + (f", term {event.term})" if event.term else ")")
    return Text.assemble(
        (f"{event.seq:>6} {_stamp(event.at)} ", "dim"), (event.kind, "bold"), who, change, reason, (by, "dim")
    )


def alert_line(alert: Alert) -> Text:
    """An alert in one line."""
    return Text.assemble(
        (f"{alert.id:>6} {_stamp(alert.at)} ", "dim"), (f"{alert.kind} ", "bold"), printable(alert.message)
    )


def alert_table(alerts: Sequence[tuple[Alert, int, int, int]], now: datetime) -> list[Any]:
    """Alerts, each with how many channels took it, have it waiting, or will not get it."""
    if not alerts:
        return [Text("No alerts.")]
    table = formats.plain_table("ID", "RAISED", "ALERT", "CHANNELS", "MESSAGE", bars=(4,))
    for alert, made, waiting, given_up in alerts:
        counts = ((made, "delivered", "green"), (waiting, "waiting", "yellow"), (given_up, "given up", "red"))
        deliveries = Text(", ").join(Text(f"{count} {what}", style=color) for count, what, color in counts if count)
        table.add_row(
            str(alert.id), formats.ago(alert.at, now), alert.kind, deliveries or "-", printable(alert.message)
        )
    return [table]


def channel_table(results: Mapping[str, str]) -> list[Any]:
    """The result of a test by each channel."""
    table = formats.plain_table("CHANNEL", "RESULT")
    for channel, trouble in results.items():
        table.add_row(channel, Text(trouble, style="red") if trouble else Text("delivered", style="green"))
    return [table]


def _stamp(at: datetime | None) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z") if at else "-"
