"""Note which services keep ending: their container ends again and again, and the engine starts it again each time."""

from collections.abc import Iterable
from datetime import datetime

from skyctl.domain.cluster import Event
from skyctl.domain.engine import EngineService, Observation
from skyctl.domain.events import EventKind
from skyctl.domain.states import DeploymentStatus
from skyctl.operations.monitor.service_events import service_event
from skyctl.operations.shared.leadership import Term
from skyctl.rules import restarts
from skyctl.rules import services as rules
from skyctl.store import db, events, service_notes, services


def note(term: Term, page: Iterable[services.AppliedDeployment], seen: Observation, now: datetime) -> list[Event]:
    """Note the services that keep ending, and those that no longer do. Return the events."""
    looked = [
        (applied, service, restarts.look(service, applied.created_as, noted(applied), now))
        for applied in page
        if (service := seen.services.get(applied.swarm_service_id))
        and rules.is_ours(service.labels, applied.service_id)
    ]
    news = [(applied, service, found) for applied, service, found in looked if found != noted(applied)]
    if not news:
        return []
    with term.recording() as tx:
        told = [_note(tx, term, applied, service, found) for applied, service, found in news]
        return events.append(tx, *(event for event in told if event))


def noted(applied: services.AppliedDeployment) -> restarts.Noted:
    """Return what was noted when a service was last looked at."""
    return restarts.Noted(applied.ending_task, applied.ending_seen_at, applied.ending_reason or "")


def is_untried(applied: services.AppliedDeployment, service: EngineService | None, now: datetime) -> bool:
    """Tell whether no container of a deployment has run for long: it was only deployed, or has failed so far."""
    if service is None or restarts.has_settled(service, noted(applied), now):
        return False
    if applied.status is DeploymentStatus.RUNNING:
        is_first = applied.created_as == str(applied.deployment_id)
        return is_first and applied.deployed_at is not None and now - applied.deployed_at < restarts.WITHIN
    return applied.status in (DeploymentStatus.DEPLOYING, DeploymentStatus.FAILED)


def _note(
    tx: db.Transaction, term: Term, applied: services.AppliedDeployment, service: EngineService, found: restarts.Noted
) -> Event | None:
    """Note how a service stands, where its row is still as it was seen; None where nobody need hear of it."""
    if not service_notes.note_ending(tx, applied, found.task, found.seen_at, found.reason or None):
        return None
    if found.reason and not applied.ending_reason:
        return service_event(term, EventKind.SERVICE_KEEPS_ENDING, applied, found.reason)
    if applied.ending_reason and not found.reason and service.replicas != 0:
        return service_event(term, EventKind.SERVICE_KEEPS_RUNNING, applied, "its container runs on")
    return None
