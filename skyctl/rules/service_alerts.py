"""Alerts about services that are down, or up again: to the administrators, and to the members of each organization."""

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from skyctl.domain.cluster import Alert, AlertPolicy, Event
from skyctl.domain.events import EventKind, ServiceRef
from skyctl.domain.text import listed

DOWN, UP = "service_down", "service_up"
SAID: Mapping[str, tuple[str, str]] = {EventKind.SERVICE_DOWN: (DOWN, "down"), EventKind.SERVICE_UP: (UP, "up again")}
MOST_IDS = 1000


def compose(events: Sequence[Event], policy: AlertPolicy) -> list[Alert]:
    """One alert a service by the last that was heard of it, or one for more than a handful of one pass."""
    last = {event.details_as(ServiceRef)["serviceId"]: event for event in events if event.kind in SAID}
    return [
        alert for kind in SAID for alert in _of_kind([event for event in last.values() if event.kind == kind], policy)
    ]


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
    kind, said = SAID[events[0].kind]
    names = [str(event.details_as(ServiceRef)["serviceName"]) for event in events]
    if len(events) > 1:
        title = f"{len(events)} {'of your ' if organization else ''}services are {said}"
        message = f"{title}: {listed(names)}"
    else:
        title = f"{'Your service' if organization else 'Service'} {names[0]} is {said}"
        where = f" (on {events[0].worker_name})" if organization is None and events[0].worker_name else ""
        message = f"{title}: {events[0].reason.partition(': ')[2]}{where}"
    if organization is None and kind == DOWN:
        message += ". See `skyctl services list --all`"
    ids = [str(event.details_as(ServiceRef)["serviceId"]) for event in events[:MOST_IDS]]
    metadata: dict[str, object] = {"services": names[:MOST_IDS], "serviceIds": ids}
    if organization is not None:
        metadata["organizationId"] = str(organization)
    return Alert(kind, None, title, message, metadata, organization_id=organization)
