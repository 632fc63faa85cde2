"""The events by which the monitor tells what became of a service."""

from skyctl.domain.cluster import Event
from skyctl.domain.event_details import ServiceRef
from skyctl.domain.events import EventKind
from skyctl.operations.shared.leadership import Term
from skyctl.store.services import AppliedDeployment


def service_event(term: Term, kind: EventKind, applied: AppliedDeployment, reason: str) -> Event:
    """Return an event of a service, with the reason behind its name where there is one."""
    details = ServiceRef(
        serviceId=str(applied.service_id),
        serviceName=applied.service_name,
        organizationId=str(applied.organization_id),
        deploymentId=str(applied.deployment_id),
    )
    reason = applied.service_name + (f": {reason}" if reason else "")
    where = (applied.worker_id, applied.worker_name)
    return Event(kind, *where, "monitor", reason=reason, details=details, term=term.number)
