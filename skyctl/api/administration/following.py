"""Events and alerts over HTTP as they come."""

from skyctl.api.administration import reading
from skyctl.api.administration.log import EVENT_FILTER, SINCE, wanted
from skyctl.api.administration.route import Route
from skyctl.api.operation import ApiRequest, Entry, Log, Page
from skyctl.api.schemas import TEXT
from skyctl.documents import cli
from skyctl.domain.api_tokens import Role
from skyctl.operations.admin import alerts, events
from skyctl.operations.shared.context import Context

GONE = "gone"


def follow_events(context: Context, request: ApiRequest) -> Page:
    """Give the events after a number; without one those that are still to come. An entry `gone` tells that some after
    it were kept long enough."""
    which = wanted(context, request)
    newest = _newest(context)
    if "since" not in request.query:
        return Page((), newest)
    since = reading.sequence("since", request)
    if since > newest:  # of a database that was put back since
        return Page([_gone(newest)], newest)
    read = events.since(context, since, wanted=which)
    found = [Entry(event.seq, event.kind, cli.event_document(event)) for event in read]
    if gone := events.begins_after(context, since):
        found.insert(0, _gone(gone))
    last = found[-1].number if found else since
    # what does not fit the filter is not read again
    return Page(found, last if len(read) == events.AT_ONCE else max(last, newest))


def _newest(context: Context) -> int:
    last = events.latest(context, 1)
    return last[-1].seq if last else 0


def _gone(number: int) -> Entry:
    return Entry(number, GONE, {"beginsAfter": number})


def follow_alerts(context: Context, request: ApiRequest) -> Page:
    """Give the alerts after a number; without one those that are still to come. An entry `gone` tells that the number
    is of a database that was put back since."""
    newest = next((alert.id for alert in alerts.since(context, None)), 0)
    if "since" not in request.query:
        return Page((), newest)
    since = reading.sequence("since", request)
    if since > newest:
        return Page([_gone(newest)], newest)
    found = [Entry(alert.id, alert.kind, cli.alert_document(alert)) for alert in alerts.since(context, since)]
    return Page(found, found[-1].number if found else since)


HOW = "server-sent events: `id` is the number, to go on after (`since`, or the header Last-Event-ID)"
ROUTES = (
    Route(
        "GET",
        "/api/events/stream",
        Role.VIEWER,
        f"Events as they come, {HOW}, `event` the kind, `data` an Event",
        follow_events,
        TEXT,
        query=(SINCE, *EVENT_FILTER),
        stream=Log.EVENTS,
    ),
    Route(
        "GET",
        "/api/alerts/stream",
        Role.VIEWER,
        f"Alerts as they come, {HOW}, `event` the kind, `data` an Alert",
        follow_alerts,
        TEXT,
        query=(SINCE,),
        stream=Log.ALERTS,
    ),
)
