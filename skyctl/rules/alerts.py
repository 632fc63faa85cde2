"""Alerts: from events to what people are told, once.

    went offline                             worker_offline, opens the worker's incident
    became exhausted                         worker_unhealthy, opens it; in the cooldown of one before, at its end
    its engine has failed                    worker_unhealthy, opens it
    came back from offline or unhealthy      worker_recovered, closes it; nothing where none is open
    began to flap                            worker_flapping, opens it; then nothing until the worker has settled
    settled                                  as if it had just become what it is now
    many failed at once                 mass_failure; nothing of each alone, nor of its return while that stands
    all of those are back, or were let go    mass_recovery
    a container runs on another worker       container_migrated, to its organization's members
    one could not be moved, for good         migration_failed, to the same
    nothing is to leave a worker any more    migration_summary; nothing where all of it was cancelled
    containers wait for approval             manual_migration_required
    a drain ended with containers left       drain_incomplete
    a copy of a worker's disk is alive, too  worker_cloned
    a worker claims a node that is not its   node_refuted
    the engine cannot be asked, or again     engine_lost, engine_back
    a service is down, or up again           service_down, service_up: to administrators, and to its organization's
                                             members
    its container keeps ending, or no longer service_keeps_ending, service_keeps_running: to the same

Of a silenced worker, what its own health calls for waits until that is over; an incident that is over as well is never
told by the channels.

What one pass tells of more than a handful of workers is one alert with their number and names.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from skyctl.domain.cluster import Alert, AlertPolicy, Event, Incident, Worker
from skyctl.domain.event_details import Approval, DrainEnd, MigrationRef, MigrationSummary, SilentWorkers, StatusChange
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import listed, printable
from skyctl.rules import engine_alerts, service_alerts

OFFLINE, UNHEALTHY, RECOVERED, FLAPPING = "worker_offline", "worker_unhealthy", "worker_recovered", "worker_flapping"
MASS_FAILURE, MASS_RECOVERY, TEST = "mass_failure", "mass_recovery", "test"
MIGRATED, MIGRATION_FAILED = "container_migrated", "migration_failed"
SUMMARY, APPROVAL, INCOMPLETE = "migration_summary", "manual_migration_required", "drain_incomplete"
CLONED, NODE_REFUTED = "worker_cloned", "node_refuted"
OPENING = (OFFLINE, UNHEALTHY, FLAPPING)
SAID = {
    OFFLINE: "is offline",
    UNHEALTHY: "is unhealthy",
    RECOVERED: "has recovered",
    FLAPPING: "keeps changing its health",
}
SAID_OF_MANY = {
    OFFLINE: "are offline",
    UNHEALTHY: "are unhealthy",
    RECOVERED: "have recovered",
    FLAPPING: "keep changing their health",
}
WORKERS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Draft:
    """An alert that is to be stored, and the workers whose incident it opens or closes."""

    alert: Alert
    opens: Sequence[UUID] = ()
    closes: Sequence[UUID] = ()


@dataclass(slots=True)
class _Memory:
    """The known state of the workers while the events are gone through."""

    incidents: Mapping[UUID, Incident]
    flapping: set[UUID]
    opened: dict[UUID, bool] = field(default_factory=dict)
    last: dict[UUID, int] = field(default_factory=dict)
    unalerted: dict[UUID, int | None] = field(default_factory=dict)

    def is_open(self, worker_id: UUID) -> bool:
        incident = self.incidents.get(worker_id)
        return self.opened.get(worker_id, incident is not None and incident.is_open)


def compose(
    events: Sequence[Event],
    incidents: Mapping[UUID, Incident],
    flapping: Iterable[UUID],
    policy: AlertPolicy,
    silenced: Collection[UUID] = (),
) -> tuple[list[Draft], dict[UUID, int | None]]:
    """Compose the alerts for the events of one pass, in their order. `flapping` are the workers that flapped before the
    first of them. An alert of one that is `silenced` is of it alone.

    Beside the drafts, the workers that get no alert of their own: the mass failure whose alert opened their
    incident, or None where that is closed.
    """
    begun = {event.worker_id for event in events if event.kind == EventKind.FLAPPING and event.worker_id}
    memory = _Memory(incidents, {*flapping, *begun})
    changes: dict[str, list[Event]] = {}
    drafts = []
    for event in events:
        if event.kind in (MASS_FAILURE, MASS_RECOVERY):
            drafts.append(Draft(_of_the_mass(event)))
        elif kind := _kind(event, memory, policy):
            changes.setdefault(kind, []).append(event)
    for kind, alike in changes.items():
        heard = [event for event in alike if event.worker_id not in silenced]
        groups = [heard] if len(heard) > policy.one_by_one else [[event] for event in heard]
        groups += [[event] for event in alike if event.worker_id in silenced]
        drafts += [_draft(kind, group, memory) for group in groups]
    return [_printable(draft) for draft in drafts + _of_containers(events, policy)], memory.unalerted


def _printable(draft: Draft) -> Draft:
    alert = draft.alert
    return replace(draft, alert=replace(alert, title=printable(alert.title), message=printable(alert.message)))


def reminder(worker: Worker, figures: str, now: datetime) -> Event:
    """The alert, when the cooldown is over, of a worker that is still unhealthy: as if it had become so now."""
    return Event(
        EventKind.STATUS_CHANGED, worker.id, worker.name, "monitor", None, WorkerStatus.UNHEALTHY, figures, at=now
    )


def _kind(event: Event, memory: _Memory, policy: AlertPolicy) -> str | None:
    """The alert that an event calls for by itself; None where people need not hear of it."""
    worker_id = event.worker_id
    if worker_id is None or event.kind not in (EventKind.STATUS_CHANGED, EventKind.FLAPPING, EventKind.SETTLED):
        return None
    if event.kind == EventKind.FLAPPING:
        kind: str | None = FLAPPING
    elif event.kind == EventKind.SETTLED:
        memory.flapping.discard(worker_id)
        kind = _by_status(event, memory)
    else:
        kind = None if worker_id in memory.flapping else _by_status(event, memory)
    has_failed = kind == OFFLINE or "engineFailed" in event.details
    if "massFailureId" in event.details and (has_failed or kind == RECOVERED):
        memory.opened[worker_id] = has_failed
        memory.unalerted[worker_id] = event.details_as(StatusChange)["massFailureId"] if has_failed else None
        return None
    if kind == UNHEALTHY and not has_failed and _was_told_lately(event, memory.incidents.get(worker_id), policy):
        return None
    if kind:
        memory.unalerted.pop(worker_id, None)
        memory.opened[worker_id] = kind in OPENING
        memory.last[worker_id] = event.seq
    return kind


def _by_status(event: Event, memory: _Memory) -> str | None:
    if event.to_status is WorkerStatus.OFFLINE:
        return None if event.details.get("onPurpose") else OFFLINE
    is_told = event.to_status is WorkerStatus.DRAINING and event.from_status is WorkerStatus.UNHEALTHY
    if event.to_status is WorkerStatus.UNHEALTHY or ("engineFailed" in event.details and not is_told):
        return UNHEALTHY
    is_drained = event.to_status is WorkerStatus.DRAINING and not is_told
    is_back = event.to_status is WorkerStatus.ACTIVE or is_drained
    return RECOVERED if is_back and event.worker_id and memory.is_open(event.worker_id) else None


def _was_told_lately(event: Event, incident: Incident | None, policy: AlertPolicy) -> bool:
    last = incident.exhaustion_alerted_at if incident else None
    return last is not None and event.at is not None and event.at - last < policy.exhaustion_cooldown


def _draft(kind: str, events: Sequence[Event], memory: _Memory) -> Draft:
    """The draft of one alert. Of several that a worker gets at once, the last one leaves its incident open or
    closed."""
    alert = _of_many(kind, events) if len(events) > 1 else _of_one(kind, events[0], memory.incidents)
    ids = [event.worker_id for event in events if event.worker_id and memory.last[event.worker_id] == event.seq]
    return Draft(alert, opens=ids) if kind in OPENING else Draft(alert, closes=ids)


def _of_one(kind: str, event: Event, incidents: Mapping[UUID, Incident]) -> Alert:
    worker_id = event.worker_id
    metadata = {
        "workerName": event.worker_name,
        "fromStatus": event.from_status,
        "toStatus": event.to_status,
        "reason": event.reason,
        **event.details,
    }
    if event.seq:
        metadata["eventSeq"] = event.seq
    if kind == RECOVERED and worker_id and worker_id in incidents:
        metadata["openedBy"] = incidents[worker_id].alert_id
    title = f"Worker {event.worker_name} {SAID[kind]}"
    return Alert(kind, worker_id, title, f"{title}: {event.reason}", metadata)


def _of_many(kind: str, events: Sequence[Event]) -> Alert:
    names = [str(event.worker_name) for event in events]
    title = f"{len(events)} workers {SAID_OF_MANY[kind]}"
    members = [{"id": str(event.worker_id), "name": event.worker_name} for event in events[:WORKERS_KEPT]]
    metadata: dict[str, object] = {"count": len(events), "workers": members}
    if all("engineFailed" in event.details for event in events):
        metadata["engineFailed"] = True
    return Alert(kind, None, title, f"{title}: {listed(names)}", metadata)


def _of_the_mass(event: Event) -> Alert:
    details = event.details_as(SilentWorkers)
    if event.kind == MASS_FAILURE:
        where = f" of region {details['region']}" if details.get("region") else ""
        title = f"{details['silent']} of {details['schedulable']} workers{where} failed"
        held = "Nothing is moved off them automatically until they return, or `skyctl migrations resume`."
        message = f"{title}: {listed(details.get('workers', []))}. {held}"
    else:
        title = event.reason
        message = f"{title}. What goes silent from now on is moved automatically again."
    return Alert(event.kind, None, title, message, {**details, "eventSeq": event.seq})


def _of_containers(events: Sequence[Event], policy: AlertPolicy) -> list[Draft]:
    """Compose the alerts about containers: to members about each of theirs, or many at once; to administrators about
    each worker's."""
    members: dict[tuple[str, str], list[Event]] = {}
    alerts = []
    for event in events:
        if event.kind == EventKind.MIGRATION_COMPLETED or (
            event.kind == EventKind.MIGRATION_FAILED and event.details.get("final")
        ):
            kind = MIGRATED if event.kind == EventKind.MIGRATION_COMPLETED else MIGRATION_FAILED
            if organization := event.details_as(MigrationRef).get("organizationId"):  # else nobody's members have it
                members.setdefault((kind, organization), []).append(event)
        elif alert := _of_a_worker(event):
            alerts.append(alert)
    for (kind, organization), outcomes in members.items():
        groups = [outcomes] if len(outcomes) > policy.one_by_one else [[outcome] for outcome in outcomes]
        alerts += [_to_members(kind, UUID(organization), group) for group in groups]
    refuted = [event for event in events if event.kind == EventKind.NODE_REFUTED]
    groups = [refuted] if len(refuted) > policy.one_by_one else [[event] for event in refuted]
    of_services = service_alerts.compose(events, policy)
    of_engine = engine_alerts.compose(events)
    return [Draft(alert) for alert in [*alerts, *map(_of_claims, groups), *of_services, *of_engine]]


def _of_claims(events: Sequence[Event]) -> Alert:
    """Compose the alert about workers whose nodes are not what they say."""
    first = events[0]
    names = listed([str(event.worker_name) for event in events])
    if len(events) > 1:
        title = f"{len(events)} workers claim swarm nodes that they are not"
        return Alert(NODE_REFUTED, None, title, f"{title}: {names}. See `skyctl workers list`.", {"count": len(events)})
    title = f"Worker {first.worker_name} claims a swarm node that it is not: {first.reason}"
    message = f"{title}. Nothing is placed on it; see `skyctl workers why {first.worker_id}`."
    details = {**first.details, "eventSeq": first.seq, "workerName": first.worker_name}
    return Alert(NODE_REFUTED, first.worker_id, title, message, details)


def _of_a_worker(event: Event) -> Alert | None:
    name, details = event.worker_name, {**event.details, "eventSeq": event.seq, "workerName": event.worker_name}
    if event.kind == EventKind.MIGRATIONS_FINISHED and set(event.details_as(MigrationSummary)["counts"]) != {
        "cancelled"
    }:
        why = "failed" if event.details_as(MigrationSummary)["cause"] == "worker_failed" else "is drained"
        title = f"Containers of {name}, which {why}: {event.reason}"
        failed = event.details_as(MigrationSummary)["services"].get("failed", [])
        message = title + (
            f". Not moved: {listed(failed)}; see `skyctl migrations list --state failed`" if failed else ""
        )
        return Alert(SUMMARY, event.worker_id, title, message, details)
    if event.kind == EventKind.APPROVAL_REQUIRED:
        title = f"{event.reason} off {name}"
        services = listed(event.details_as(Approval)["services"])
        message = f"{title}: {services}. See `skyctl migrations list` and `skyctl migrations approve`"
        return Alert(APPROVAL, event.worker_id, title, message, details)
    if event.kind == EventKind.CLONED:
        title = f"Worker {name} was copied: {event.reason}"
        message = f"{title}. The copy is refused: give it a machine id and an invitation of its own."
        return Alert(CLONED, event.worker_id, title, message, details)
    if event.kind == EventKind.DRAIN_FINISHED and event.details_as(DrainEnd)["left"]:
        title = f"Drain of {name} has ended: {event.reason}"
        end = event.details_as(DrainEnd)
        return Alert(
            INCOMPLETE,
            event.worker_id,
            title,
            f"{title}: {listed([*end['services'], *end.get('others', [])])}",
            details,
        )
    return None


def _to_members(kind: str, organization_id: UUID, events: Sequence[Event]) -> Alert:
    """Compose the alert to an organization's members about their containers; it does not say on which worker these
    are."""
    names = [str(event.details_as(MigrationRef)["serviceName"]) for event in events]
    ids = [str(event.details_as(MigrationRef)["serviceId"]) for event in events[:WORKERS_KEPT]]
    many = len(events) > 1
    subject = f"{len(events)} of your containers" if many else f"Your container {names[0]}"
    outcome = ("were" if many else "was") + (" moved to other hosts" if many else " moved to another host")
    if kind == MIGRATION_FAILED:
        outcome = "could not be moved to " + ("other hosts" if many else "another host")
    title = f"{subject} {outcome}"
    message = f"{title}: {listed(names)}" if many else f"{title}: {events[0].reason.partition(': ')[2]}"
    metadata = {"services": names[:WORKERS_KEPT], "serviceIds": ids, "organizationId": str(organization_id)}
    return Alert(
        kind,
        None,
        title,
        message if kind == MIGRATION_FAILED or many else title,
        metadata,
        organization_id=organization_id,
    )


def fold(waiting: Sequence[Alert]) -> Alert:
    """Make one alert of those of an incident that wait together, the newest first: that one, and how many were before
    it."""
    newest, *earlier = waiting
    if not earlier:
        return newest
    titles = Counter(alert.title for alert in earlier)
    before = listed([title if times == 1 else f"{times} x {title}" for title, times in titles.items()])
    return replace(
        newest,
        title=f"{newest.title} ({len(waiting)} alerts)",
        message=f"{newest.message}\nThe newest of {len(waiting)} alerts of it that waited; before: {before}.",
    )
