"""Deliver alerts to channels: any monitor may, whether it leads or not.

This is the one part of a monitor's work that needs no term. An alert that was raised is a fact, and whoever claims its
delivery is the only one who sends it; nothing is concluded, and no order is given. With a term, the end of a monitor
would hold up what waits, and `monitor --once` could not hand the lead over before it sends.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.operations.shared.context import Context, Send
from skyctl.rules import alerts, retry
from skyctl.store import alerts as store
from skyctl.store import db

# A delivery that takes a channel longer than this is claimed again, by any monitor.
SENDING = timedelta(minutes=2)
MOST_ATTEMPTS = 40


def deliver_next(context: Context, channel: str, send: Send) -> Sequence[Alert]:
    """Send what is to go next by the channel, as one message; return its alerts, the newest first, none where none is
    due.

    Raises ChannelFailed; they are then tried again later. Nothing slow happens in a transaction: the deliveries are
    claimed in one, sent, and noted in another. A process that is killed in between leaves them to be sent again.
    """
    with context.db.transaction() as tx:
        claimed = store.claim(tx, channel, SENDING)
    if not claimed:
        return ()
    waiting = [delivery.alert for delivery in claimed]
    try:
        send(alerts.fold(waiting))
    except ChannelFailed as error:
        with _noting(context) as tx:
            for alert, attempt in claimed:
                pause = None if attempt >= MOST_ATTEMPTS else retry.pause(attempt)
                store.note_failed(tx, alert.id, channel, error.message, pause)
        raise
    with _noting(context) as tx:
        store.note_delivered(tx, [alert.id for alert in waiting], channel)
    return waiting


@contextmanager
def _noting(context: Context) -> Iterator[db.Transaction]:
    """Begin a transaction for what was done, which waits for whoever holds a lock: else it would be done again."""
    with context.db.transaction() as tx:
        db.limit_lock_waits(tx, 0)
        yield tx


def seconds_to_next(context: Context, channel: str) -> float | None:
    """Return in how many seconds the next delivery by the channel is due; None where none waits."""
    with context.db.transaction() as tx:
        due = store.next_due_at(tx, channel)
        return None if due is None else max(0.0, (due - db.now(tx)).total_seconds())
