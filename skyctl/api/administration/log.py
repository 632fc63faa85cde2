"""Events and alerts over HTTP."""

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route, parameter
from skyctl.api.administration.schemas import MAYBE_NUMBER, MAYBE_TEXT, many
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import NAME, TEXT, TIME, Document, json_object, reference
from skyctl.documents import cli, http, times
from skyctl.domain.api_tokens import Role
from skyctl.domain.event_filter import EventFilter
from skyctl.domain.events import EventKind
from skyctl.operations.admin import alerts, events, silences, workers
from skyctl.operations.shared.context import Context


def wanted(context: Context, request: ApiRequest) -> EventFilter:
    """Return which events the query asks for; workers that were removed may be named, too. Raises WorkerNotFound,
    ValidationError."""
    ids = events.workers_named(context, reading.several(request, "worker"))
    now = workers.read_at(context)
    begins_at, ends_at = (
        times.point(field, request.query[field], now) if field in request.query else None for field in ("from", "until")
    )
    return EventFilter(ids, reading.choices(request, "kind", EventKind), begins_at, ends_at, _number("before", request))


def _number(field: str, request: ApiRequest) -> int | None:
    return reading.sequence(field, request) if field in request.query else None


def list_events(context: Context, request: ApiRequest) -> Document:
    """List the last events, or those after a number: ask again with the last one's."""
    most, which = reading.limit(request), wanted(context, request)
    if "since" not in request.query:
        found = events.latest(context, most, which)
        return {"events": [cli.event_document(event) for event in found], "beginsAfter": None}
    since = reading.sequence("since", request)
    found = events.since(context, since, most, which)
    gone = events.begins_after(context, since)
    return {"events": [cli.event_document(event) for event in found], "beginsAfter": gone}


def list_alerts(context: Context, request: ApiRequest) -> Document:
    """List the last alerts, and whether the channels took them."""
    after, before = (_number(field, request) for field in ("since", "before"))
    silenced = [http.worker_document(worker) for worker in silences.silenced(context)]
    found = alerts.latest(context, reading.limit(request), after=after, before=before)
    return cli.alerts_document(*found) | {"silenced": silenced}


def try_channels(context: Context, request: ApiRequest) -> Document:
    """Send a test by every channel."""
    said = reading.body(request, "message")
    results = alerts.try_channels(context, http.message(reading.text(said, "message")))
    return {"channels": [{"channel": channel, "error": trouble or None} for channel, trouble in results.items()]}


SINCE = parameter("since", {"type": "integer", "minimum": 0, "maximum": reading.MAX_SEQ}, "what is after this number")
BEFORE = parameter("before", {"type": "integer", "minimum": 0, "maximum": reading.MAX_SEQ}, "those before this number")
A_TIME = "so long ago, such as 1h30m, or a date"
WHEN = (parameter("from", TEXT, f"since {A_TIME}"), parameter("until", TEXT, f"until {A_TIME}"))
EVENT_FILTER = (reading.WORKER, parameter("kind", TEXT, f"{reading.SEVERAL} of the kinds of docs/reference/events.md"))
ROUTES = (
    Route(
        "GET",
        "/api/events",
        Role.VIEWER,
        "The last events, or those after a number, in order and without a gap",
        list_events,
        json_object(
            events=many(reference("Event")),
            beginsAfter=MAYBE_NUMBER | {"description": "the last event that is gone, where some after `since` are"},
        ),
        query=(SINCE, BEFORE, *WHEN, *EVENT_FILTER, reading.LIMIT),
    ),
    Route(
        "GET",
        "/api/alerts",
        Role.VIEWER,
        "The last alerts, and how many channels took each",
        list_alerts,
        json_object(alerts=many(reference("Alert")), readAt=TIME, silenced=many(reference("Worker"))),
        query=(SINCE, BEFORE, reading.LIMIT),
    ),
    Route(
        "POST",
        "/api/alerts/test",
        Role.OPERATOR,
        "Send a test by every channel, and say why one did not take it",
        try_channels,
        json_object(channels=many(json_object(channel=TEXT, error=MAYBE_TEXT))),
        body=reading.object_of(message=NAME | {"maxLength": http.LONGEST_REASON}),
        by_monitor=True,
    ),
)
