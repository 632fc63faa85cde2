"""Alerts by channels: whatever Apprise has a URL for, as Slack, mail and webhooks. Its URLs hold secrets, its names do not."""

import hashlib
import logging
from collections.abc import Sequence

from skyctl.errors import ChannelFailed
from skyctl.model import Alert

FAILURES = {
    "worker_recovered": "success",
    "mass_recovery": "success",
    "test": "info",
    "worker_offline": "failure",
    "mass_failure": "failure",
}


def names(urls: Sequence[str]) -> tuple[str, ...]:
    """What the channels are called wherever people or the database see them: the kind, and a digest of the URL."""
    return tuple(_name(url) for url in urls)


def _name(url: str) -> str:
    return f"{url.partition('://')[0].lower()}:{hashlib.sha256(url.encode()).hexdigest()[:8]}"


class Channels:
    """The channels of these URLs, by their names."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = {_name(url): url for url in urls}

    def send(self, channel: str, alert: Alert) -> None:
        """Send an alert. Raises ChannelFailed, whose message names the channel and not its URL."""
        import apprise  # here, since it is slow to load and only deliveries need it

        logging.getLogger("apprise").disabled = True  # its lines hold the URLs, or parts of them
        sender = apprise.Apprise()
        url = self._urls.get(channel)
        if url is None:
            raise ChannelFailed(f"the channel {channel} is not in the settings", "see SKYCTL_ALERT_CHANNELS")
        if not sender.add(url):
            raise ChannelFailed(
                f"the URL of the channel {channel} cannot be read",
                "see SKYCTL_ALERT_CHANNELS and Apprise's list of URLs",
            )
        kind = apprise.NotifyType(FAILURES.get(alert.kind, "warning"))
        if not sender.notify(
            title=alert.title, body=alert.message, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
        ):
            raise ChannelFailed(
                f"the channel {channel} did not take the alert", "see that its service is up and its URL still good"
            )
