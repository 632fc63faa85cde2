"""Stories of alerts: raised from events, told to the people in the database, delivered to channels, looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from skyctl.domain.cluster import Alert, Event, Lease
from skyctl.domain.errors import ChannelFailed, DatabaseRefused
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leadership import TTL
from skyctl.rules import alerts, retry
from skyctl.rules import health as rules
from skyctl.store import alerts as store
from skyctl.store import db, events, health, leases

MOST_EVENTS = 100_000
RAISE_SECONDS = 60.0
# What takes a channel longer than this is tried again, by whoever leads then.
SENDING = timedelta(minutes=2)
MOST_ATTEMPTS = 40


@dataclass(frozen=True, slots=True)
class Raised:
    """The alerts that were raised, and the events of which none could be."""

    alerts: Sequence[Alert] = ()
    poison: Sequence[Event] = ()


def raise_alerts(context: Context, lease: Lease) -> Raised:
    """Raise, once each, the alerts that the events since the last time call for. Raises LostLead, DatabaseUnavailable.

    An event for which the database refuses the alert is passed over, and so keeps nobody from hearing of the others.
    """
    raised: list[Alert] = []
    poison: list[Event] = []
    at_once = MOST_EVENTS
    while True:
        try:
            done = _raise_of(context, lease, at_once)
        except DatabaseRefused:
            if at_once == 1:
                poison.append(_pass_over(context, lease))
            at_once = max(1, at_once // 10)
            continue
        if done is None:
            return Raised(raised, poison)
        raised += done


def _raise_of(context: Context, lease: Lease, at_once: int) -> list[Alert] | None:
    """Raise the alerts of the next events; None where there are none."""
    with context.db.transaction(limit_seconds=RAISE_SECONDS) as tx:
        leases.hold(tx, lease, TTL)
        before, now = leases.alerted_seq(tx), db.now(tx)
        found, policy = events.since(tx, before, at_once), context.alerting
        changed = {event.worker_id for event in found}
        again = [one for one in store.still_exhausted(tx, policy.exhaustion_cooldown) if one.id not in changed]
        news = [*found, *(alerts.reminder(one, rules.figures(one.load, context.health), now) for one in again)]
        if not news:
            return None
        ids = {event.worker_id for event in news if event.worker_id}
        drafts, untold = alerts.compose(news, store.incidents_of(tx, ids), health.flapping(tx, ids, before), policy)
        for draft in drafts:
            _store(tx, context, draft, lease)
        for number in set(untold.values()):
            store.note_untold(tx, number, [worker_id for worker_id, of in untold.items() if of == number])
        if found:
            leases.note_alerted(tx, found[-1].seq)
        return [draft.alert for draft in drafts]


def _store(tx: db.Transaction, context: Context, draft: alerts.Draft, lease: Lease) -> None:
    number = store.insert_alert(tx, draft.alert, lease.term)
    store.open_incidents(tx, number, draft.opens, exhausted=draft.alert.kind == alerts.UNHEALTHY)
    store.close_incidents(tx, draft.closes)
    store.tell(tx, number, draft.alert)
    if draft.alert.organization_id is None:  # the channels are the administrators'
        store.send_to(tx, number, context.channels)


def _pass_over(context: Context, lease: Lease) -> Event:
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        [event] = events.since(tx, leases.alerted_seq(tx), 1)
        leases.note_alerted(tx, event.seq)
        return event


def deliver_next(context: Context, channel: str) -> Alert | None:
    """Send the alert that is due by the channel; None where none is. Raises ChannelFailed; the alert is then tried
    again later.

    Nothing slow happens in a transaction: the alert is claimed in one, sent, and noted in another. Who is killed in
    between leaves it to be sent again.
    """
    with context.db.transaction() as tx:
        delivery = store.claim(tx, channel, SENDING)
    if delivery is None:
        return None
    alert = delivery.alert
    try:
        context.notifier().send(channel, alert)
    except ChannelFailed as error:
        pause = None if delivery.attempt >= MOST_ATTEMPTS else retry.pause(delivery.attempt)
        with context.db.transaction() as tx:
            store.note_failed(tx, alert.id, channel, error.message, pause)
        raise
    with context.db.transaction() as tx:
        store.note_delivered(tx, alert.id, channel)
    return alert


def seconds_to_next(context: Context, channel: str) -> float | None:
    """In how many seconds the next delivery by the channel is due; None where none waits."""
    with context.db.transaction() as tx:
        due = store.next_due_at(tx, channel)
        return None if due is None else max(0.0, (due - db.now(tx)).total_seconds())
