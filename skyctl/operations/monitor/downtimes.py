"""Note which services are down: none of their containers runs, for longer than a moment, though one is to."""

from collections.abc import Iterable

from skyctl.domain.cluster import Event
from skyctl.domain.engine import Observation
from skyctl.domain.events import EventKind, ServiceRef
from skyctl.domain.states import DeploymentStatus
from skyctl.operations.shared.leadership import Term
from skyctl.rules import services as rules
from skyctl.store import db, events, services


def note(term: Term, page: Iterable[services.AppliedDeployment], seen: Observation) -> list[Event]:
    """Note the services that went down, that have been down for longer than the grace time, and that are up again.
    Return the events."""
    standings = [(applied, _standing(applied, seen)) for applied in page]
    news = [(applied, why) for applied, why in standings if bool(why) is not applied.is_down or applied.is_pending]
    if not news:
        return []
    with term.recording() as tx:
        now, grace = db.now(tx), term.context.migrations.down_grace
        told = []
        for applied, why in news:
            since = applied.down_since
            if not why:
                services.note_up(tx, applied.service_id)
                told += [_event(term, EventKind.SERVICE_UP, applied, "it runs again")] * applied.is_told
            elif since is None or since > now:
                services.note_down(tx, applied.service_id)
            elif now - since > grace:
                services.note_down(tx, applied.service_id, why)
                lasted = f"down for {(now - since).total_seconds():.0f} s"
                told.append(_event(term, EventKind.SERVICE_DOWN, applied, f"{lasted}: {why}"))
        return events.append(tx, *told)


def _standing(applied: services.AppliedDeployment, seen: Observation) -> str:
    """Return why a service is down; empty where it is not, or is not to run, or has never run."""
    service = seen.services.get(applied.swarm_service_id)
    if service is None or not rules.is_ours(service.labels, applied.service_id):
        return ""
    if applied.status is DeploymentStatus.RUNNING or applied.is_down:
        return rules.downtime(service)
    return ""


def _event(term: Term, kind: EventKind, applied: services.AppliedDeployment, reason: str) -> Event:
    details = ServiceRef(
        serviceId=str(applied.service_id),
        serviceName=applied.service_name,
        organizationId=str(applied.organization_id),
        deploymentId=str(applied.deployment_id),
    )
    reason = f"{applied.service_name}: {reason}"
    return Event(
        kind, applied.worker_id, applied.worker_name, "monitor", reason=reason, details=details, term=term.number
    )
