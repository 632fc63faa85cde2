"""Alerts for administrators: list the latest, follow new ones, test the channels."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.operations.shared.context import Context
from skyctl.rules import alerts
from skyctl.store import alerts as store
from skyctl.store import db

MOST_ALERTS = 100_000


def try_channels(context: Context, text: str) -> dict[str, str]:
    """Send a test by all channels at once; return by channel what went wrong, empty where it arrived."""
    alert = Alert(alerts.TEST, None, "Test of skyctl's alerts", text)

    def trouble(channel: str) -> str:
        try:
            with context.notifier().opened(channel) as send:
                send(alert)
        except ChannelFailed as error:
            return error.message
        return ""

    with ThreadPoolExecutor(max(1, len(context.channels))) as pool:
        return dict(zip(context.channels, pool.map(trouble, context.channels), strict=True))


def latest(
    context: Context, limit: int, *, after: int | None = None, before: int | None = None
) -> tuple[list[tuple[Alert, int, int, int]], datetime]:
    """Return the last alerts before a number, if there is one, or the first after one, in order, each with its
    deliveries (made, waiting, given up); and the database's time."""
    with context.db.transaction() as tx:
        return store.latest(tx, limit, after, before), db.now(tx)


def since(context: Context, number: int | None) -> list[Alert]:
    """Return the alerts after a number, in order; without a number only the last one."""
    with context.db.transaction() as tx:
        return store.since(tx, store.last_id(tx) - 1 if number is None else number, MOST_ALERTS)
