"""Raise alerts from events: each reaches the people in the database at once, and waits for the channels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from skyctl.domain.cluster import Alert, Event
from skyctl.domain.errors import DatabaseRefused
from skyctl.domain.wishes import AlertSilence
from skyctl.operations.shared.leadership import Term
from skyctl.rules import alerts
from skyctl.rules import health as rules
from skyctl.store import alerts as store
from skyctl.store import db, events, health, leases, wishes

MOST_EVENTS = 20_000
RAISE_SECONDS = 60.0
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class RaisedAlerts:
    """The alerts that were raised, and the events of which none could be."""

    alerts: Sequence[Alert] = ()
    poison: Sequence[Event] = ()


def raise_alerts(term: Term) -> RaisedAlerts:
    """Raise, once each, the alerts that the events since the last call ask for. Raises LostLead, DatabaseUnavailable.

    An event whose alert the database refuses is passed over, so that it keeps nobody from hearing of the others.
    """
    raised: list[Alert] = []
    poison: list[Event] = []
    at_once = MOST_EVENTS
    while True:
        try:
            batch = _raise_next(term, at_once)
        except DatabaseRefused:
            if at_once == 1:
                poison.append(_pass_over(term))
            at_once = max(1, at_once // 10)
            continue
        if batch is None:
            return RaisedAlerts(raised, poison)
        raised += batch


def _raise_next(term: Term, at_once: int) -> list[Alert] | None:
    """Raise the alerts of the next events; None where there are none."""
    context, policy = term.context, term.context.alerting
    with term.writing(limit_seconds=RAISE_SECONDS) as tx:
        before, now = leases.alerted_seq(tx), db.now(tx)
        new = events.since(tx, before, at_once)
        changed = {event.worker_id for event in new}
        exhausted = [
            worker for worker in store.still_exhausted(tx, policy.exhaustion_cooldown) if worker.id not in changed
        ]
        reminders = [alerts.reminder(worker, rules.figures(worker, context.health), now) for worker in exhausted]
        news = [*new, *reminders]
        if not news:
            return None
        ids = {event.worker_id for event in news if event.worker_id}
        silenced = {worker.id: worker.alert_silence for worker in wishes.silenced(tx, ids) if worker.alert_silence}
        incidents, flapping = store.incidents_of(tx, ids), health.flapping(tx, ids, before)
        drafts, unalerted = alerts.compose(news, incidents, flapping, policy, silenced)
        for draft in drafts:
            is_health = draft.alert.kind in alerts.SAID and draft.alert.worker_id is not None
            _store(tx, term, draft, silenced.get(draft.alert.worker_id or NOBODY) if is_health else None)
        by_failure: dict[int | None, list[UUID]] = {}
        for worker_id, number in unalerted.items():
            by_failure.setdefault(number, []).append(worker_id)
        for number, worker_ids in by_failure.items():
            store.assign_incidents(tx, number, worker_ids)
        if new:
            leases.note_alerted(tx, new[-1].seq)
        return [draft.alert for draft in drafts]


def _store(tx: db.Transaction, term: Term, draft: alerts.Draft, silence: AlertSilence | None) -> None:
    if silence:
        metadata = {**draft.alert.metadata, "silencedUntil": silence.until.isoformat()}
        draft = replace(draft, alert=replace(draft.alert, metadata=metadata))
    number = store.insert_alert(tx, draft.alert, term.number)
    is_exhausted = draft.alert.kind == alerts.UNHEALTHY and "engineFailed" not in draft.alert.metadata
    store.open_incidents(tx, number, draft.opens, exhausted=is_exhausted)
    store.close_incidents(tx, draft.closes)
    store.notify(tx, number, draft.alert)
    if draft.alert.organization_id is None:  # the channels are the administrators'
        store.send_to(tx, number, _channels(tx, term, draft, silence), silence.until if silence else None)


def _channels(tx: db.Transaction, term: Term, draft: alerts.Draft, silence: AlertSilence | None) -> list[str]:
    """Return the channels that are to be told: of the end of what a silence has kept from one, that is not, unless it
    had heard its beginning before."""
    channels = list(term.context.channels)
    if silence and draft.alert.kind == alerts.RECOVERED and draft.alert.worker_id:
        dropped = wishes.drop_held(tx, draft.alert.worker_id, alerts.OPENING)
        opened_by = draft.alert.metadata.get("openedBy")
        untold = {channel for number, channel in dropped if opened_by in (None, number)}
        return [channel for channel in channels if channel not in untold]
    return channels


def _pass_over(term: Term) -> Event:
    with term.writing() as tx:
        [event] = events.since(tx, leases.alerted_seq(tx), 1)
        leases.note_alerted(tx, event.seq)
        return event
