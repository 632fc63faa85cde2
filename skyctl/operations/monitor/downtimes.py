"""Note which services are down: none of their containers runs, for longer than a moment, though one is to."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from skyctl.domain.cluster import Event
from skyctl.domain.engine import Observation
from skyctl.domain.events import EventKind
from skyctl.domain.states import DeploymentStatus
from skyctl.operations.monitor.service_events import service_event
from skyctl.operations.shared.leadership import Term
from skyctl.rules import services as rules
from skyctl.store import db, events, service_notes, services
from skyctl.store.node_states import LONGEST_GAP


def note(term: Term, page: Iterable[services.AppliedDeployment], seen: Observation) -> list[Event]:
    """Note the services that went down, that have been down for longer than the grace time, and that are up again.
    Return the events."""
    standings = [(applied, _standing(applied, seen)) for applied in page]
    news = [(applied, why) for applied, why in standings if bool(why) is not applied.is_down or applied.is_pending]
    if not news:
        return []
    with term.recording() as tx:
        now = db.now(tx)
        told = [_note(tx, term, applied, why, now) for applied, why in news]
        return events.append(tx, *(event for event in told if event))


def _note(
    tx: db.Transaction, term: Term, applied: services.AppliedDeployment, why: str | None, now: datetime
) -> Event | None:
    """Note how a service stands, where its row is still as it was seen; None where nobody need hear of it."""
    if not why:
        is_told = service_notes.note_up(tx, applied) and applied.is_told and why is not None
        return service_event(term, EventKind.SERVICE_UP, applied, "it runs again") if is_told else None
    since, seen_at = applied.down_since, applied.down_seen_at
    is_gap = seen_at is None or not timedelta() <= now - seen_at <= LONGEST_GAP
    if since is None or since > now or is_gap:
        service_notes.note_down(tx, applied, since=now)
    elif now - since <= term.context.migrations.down_grace:
        service_notes.note_down(tx, applied, since=since)
    elif service_notes.note_down(tx, applied, since=since, reason=why):
        lasted = f"down for {(now - since).total_seconds():.0f} s"
        return service_event(term, EventKind.SERVICE_DOWN, applied, f"{lasted}: {why}")
    return None


def _standing(applied: services.AppliedDeployment, seen: Observation) -> str | None:
    """Return why a service is down; empty where it is not; None where it is not to run, or has never run."""
    service = seen.services.get(applied.swarm_service_id)
    if service is None or not rules.is_ours(service.labels, applied.service_id):
        return None
    if applied.status is DeploymentStatus.RUNNING or applied.is_down:
        return rules.downtime(service)
    return None
