"""Deliver alerts to channels: any monitor may, whether it leads or not.

This is the one part of a monitor's work that needs no term. An alert that was raised is a fact, and whoever claims its
delivery is the only one who sends it; nothing is concluded, and no order is given. With a term, the end of a monitor
would hold up what waits, and `monitor --once` could not hand the lead over before it sends.
"""

from datetime import timedelta

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.operations.shared.context import Context
from skyctl.rules import retry
from skyctl.store import alerts as store
from skyctl.store import db

# A delivery that takes a channel longer than this is claimed again, by any monitor.
SENDING = timedelta(minutes=2)
MOST_ATTEMPTS = 40


def deliver_next(context: Context, channel: str) -> Alert | None:
    """Send the alert that is due by the channel; return None where none is due.

    Raises ChannelFailed; the alert is then tried again later. Nothing slow happens in a transaction: the delivery is
    claimed in one, sent, and noted in another. A process that is killed in between leaves it to be sent again.
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
    """Return in how many seconds the next delivery by the channel is due; None where none waits."""
    with context.db.transaction() as tx:
        due = store.next_due_at(tx, channel)
        return None if due is None else max(0.0, (due - db.now(tx)).total_seconds())
