"""Alerts by channels: whatever Apprise has a URL for, as Slack, mail and webhooks. Its URLs hold secrets, its names do
not."""

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.host import interpreter
from skyctl.notifiers import apprise_child

LIMIT_SECONDS = 30.0

KEPT = {
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}
PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
FAILURES = {
    "worker_recovered": "success",
    "mass_recovery": "success",
    "test": "info",
    "worker_offline": "failure",
    "mass_failure": "failure",
}


def names(urls: Sequence[str]) -> tuple[str, ...]:
    """The names of the channels wherever people or the database see them: the kind, and a digest of the URL."""
    return tuple(_name(url) for url in urls)


def _name(url: str) -> str:
    return f"{url.partition('://')[0].lower()}:{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _environment() -> dict[str, str]:
    """What a sender gets of the environment: how to reach its service, and neither the database nor any secret."""
    return {name: value for name, value in os.environ.items() if name in KEPT or name.lower() in PROXIES}


class Channels:
    """The channels of these URLs, by their names; each sends within the limit, or has failed."""

    def __init__(self, urls: Sequence[str], limit_seconds: float = LIMIT_SECONDS) -> None:
        self._urls = {_name(url): url for url in urls}
        self._limit = limit_seconds

    def send(self, channel: str, alert: Alert) -> None:
        """Send an alert. Raises ChannelFailed, whose message names the channel and not its URL."""
        url = self._urls.get(channel)
        if url is None:
            raise ChannelFailed(f"the channel {channel} is not in the settings", "see SKYCTL_ALERT_CHANNELS")
        try:
            code = self._run(url, alert)
        except subprocess.TimeoutExpired:
            raise ChannelFailed(
                f"the channel {channel} did not answer within {self._limit:g} s", "see that its service is up"
            ) from None
        except OSError as error:
            raise ChannelFailed(
                f"the channel {channel} could not be tried: {error.strerror}",
                "each alert is sent by a process of its own; see what this host lacks for one",
            ) from None
        if code == apprise_child.UNREADABLE:
            raise ChannelFailed(
                f"the URL of the channel {channel} cannot be read",
                "see SKYCTL_ALERT_CHANNELS and Apprise's list of URLs",
            )
        if code != apprise_child.TAKEN:
            raise ChannelFailed(
                f"the channel {channel} did not take the alert", "see that its service is up and its URL still good"
            )

    def _run(self, url: str, alert: Alert) -> int:
        """Send in a process of its own, which imports nothing from our folder and knows none of our settings; its exit
        code. Raises TimeoutExpired, OSError."""
        task = {"url": url, "title": alert.title, "body": alert.message, "kind": FAILURES.get(alert.kind, "warning")}
        return subprocess.run(
            interpreter.command("skyctl.notifiers.apprise_child"),
            env=_environment(),
            input=json.dumps(task | {"parent": os.getpid()}).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=self._limit,
            check=False,
        ).returncode
