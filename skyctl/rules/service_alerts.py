"""Alerts about services that are down or keep ending, and of the end of that: to the administrators, and to the members
of each organization."""

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from skyctl.domain.cluster import Alert, AlertPolicy, Event
from skyctl.domain.event_details import ServiceRef
from skyctl.domain.events import EventKind
from skyctl.domain.text import listed

DOWN, UP = "service_down", "service_up"
KEEPS_ENDING, KEEPS_RUNNING = "service_keeps_ending", "service_keeps_running"
# By the kind of event: that of the alert, and what is said of one service, and of several.
SAID: Mapping[str, tuple[str, str, str]] = {
    EventKind.SERVICE_DOWN: (DOWN, "is down", "are down"),
    EventKind.SERVICE_UP: (UP, "is up again", "are up again"),
    EventKind.SERVICE_KEEPS_ENDING: (KEEPS_ENDING, "keeps ending", "keep ending"),
    EventKind.SERVICE_KEEPS_RUNNING: (KEEPS_RUNNING, "no longer keeps ending", "no longer keep ending"),
}
# What is said of the same; the last of it that was heard counts.
TOPICS = (
    (EventKind.SERVICE_DOWN, EventKind.SERVICE_UP),
    (EventKind.SERVICE_KEEPS_ENDING, EventKind.SERVICE_KEEPS_RUNNING),
)
MOST_IDS = 1000


def compose(events: Sequence[Event], policy: AlertPolicy) -> list[Alert]:
    """One alert a service by the last that was heard of it, or one for more than a handful of one pass."""
    alerts: list[Alert] = []
    for topic in TOPICS:
        last = {event.details_as(ServiceRef)["serviceId"]: event for event in events if event.kind in topic}
        for kind in topic:
            alerts += _of_kind([event for event in last.values() if event.kind == kind], policy)
    return alerts


def _of_kind(events: Sequence[Event], policy: AlertPolicy) -> Iterator[Alert]:
    yield from _grouped(events, policy, None)
    organizations = sorted({event.details_as(ServiceRef)["organizationId"] for event in events})
    for organization in organizations:
        theirs = [event for event in events if event.details_as(ServiceRef)["organizationId"] == organization]
        yield from _grouped(theirs, policy, UUID(organization))


def _grouped(events: Sequence[Event], policy: AlertPolicy, organization: UUID | None) -> Iterator[Alert]:
    groups = [events] if len(events) > policy.one_by_one else [[event] for event in events]
    yield from (_alert(group, organization) for group in groups if group)


def _alert(events: Sequence[Event], organization: UUID | None) -> Alert:
    """Administrators are told on which worker it was; members are not."""
    kind, says, say = SAID[events[0].kind]
    names = [str(event.details_as(ServiceRef)["serviceName"]) for event in events]
    if len(events) > 1:
        title = f"{len(events)} {'of your ' if organization else ''}services {say}"
        message = f"{title}: {listed(names)}"
    else:
        title = f"{'Your service' if organization else 'Service'} {names[0]} {says}"
        where = f" (on {events[0].worker_name})" if organization is None and events[0].worker_name else ""
        message = f"{title}: {events[0].reason.partition(': ')[2]}{where}"
    if organization is None and kind in (DOWN, KEEPS_ENDING):
        message += ". See `skyctl services list --all`"
    ids = [str(event.details_as(ServiceRef)["serviceId"]) for event in events[:MOST_IDS]]
    metadata: dict[str, object] = {"services": names[:MOST_IDS], "serviceIds": ids}
    if organization is not None:
        metadata["organizationId"] = str(organization)
    return Alert(kind, None, title, message, metadata, organization_id=organization)
