"""Alerts about the container engine itself, to the administrators."""

from collections.abc import Sequence

from skyctl.domain.cluster import Alert, Event
from skyctl.domain.events import EventKind

LOST, BACK = "engine_lost", "engine_back"


def compose(events: Sequence[Event]) -> list[Alert]:
    """One alert an event."""
    return [_alert(event) for event in events if event.kind in (EventKind.ENGINE_LOST, EventKind.ENGINE_BACK)]


def _alert(event: Event) -> Alert:
    if event.kind == EventKind.ENGINE_LOST:
        title = "The container engine cannot be asked"
        message = f"{title}, {event.reason}. Nothing is moved until it answers: see `skyctl doctor`."
    else:
        title = "The container engine answers again"
        message = f"{title}, {event.reason}."
    return Alert(event.kind, None, title, message, {"eventSeq": event.seq, "reason": event.reason})
