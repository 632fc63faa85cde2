"""Alerts by channels: whatever Apprise has a URL for, as Slack, mail and webhooks. Its URLs hold secrets, its names do
not."""

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.host import interpreter
from skyctl.notifiers import apprise_child
from skyctl.rules.severity import Severity, severity

LIMIT_SECONDS = 30.0

KEPT = {
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}
PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
NOTIFY_TYPES = {Severity.ERROR: "failure"}
"""Apprise's words for how grave an alert is, where they are not ours."""


def names(urls: Sequence[str]) -> tuple[str, ...]:
    """The names of the channels wherever people or the database see them: the kind, and a digest of the URL."""
    return tuple(_name(url) for url in urls)


def _name(url: str) -> str:
    return f"{url.partition('://')[0].lower()}:{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _environment() -> dict[str, str]:
    """What a sender gets of the environment: how to reach its service, and neither the database nor any secret."""
    return {name: value for name, value in os.environ.items() if name in KEPT or name.lower() in PROXIES}


class Channels:
    """The channels of these URLs, by their names; each sends an alert within the limit, or has failed."""

    def __init__(self, urls: Sequence[str], limit_seconds: float = LIMIT_SECONDS) -> None:
        self._urls = {_name(url): url for url in urls}
        self._limit = limit_seconds

    @contextmanager
    def opened(self, channel: str) -> Iterator[Callable[[Alert], None]]:
        """Open a channel for any number of alerts: gives what sends one. That raises ChannelFailed, whose message names
        the channel and not its URL."""
        sender = _Sender(channel, self._urls.get(channel), self._limit)
        try:
            yield sender.send
        finally:
            sender.end()


class _Sender:
    """A channel's process, which imports nothing from our folder and knows none of our settings. It is started by the
    first alert, takes one after the other, and is killed where it takes too long, or at the end; the next alert starts
    another."""

    def __init__(self, channel: str, url: str | None, limit_seconds: float) -> None:
        self._channel, self._url, self._limit = channel, url, limit_seconds
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def send(self, alert: Alert) -> None:
        """Send an alert. Raises ChannelFailed."""
        if self._url is None:
            raise ChannelFailed(f"the channel {self._channel} is not in the settings", "see SKYCTL_ALERT_CHANNELS")
        try:
            answer = self._ask(alert)
        except TimeoutError:
            raise ChannelFailed(
                f"the channel {self._channel} did not answer within {self._limit:g} s", "see that its service is up"
            ) from None
        except ConnectionError:  # the process has ended
            answer = apprise_child.NOT_TAKEN
        except OSError as error:
            raise ChannelFailed(
                f"the channel {self._channel} could not be tried: {error.strerror}",
                "its alerts are sent by a process of its own; see what this host lacks for one",
            ) from None
        if answer == apprise_child.UNREADABLE:
            raise ChannelFailed(
                f"the URL of the channel {self._channel} cannot be read",
                "see SKYCTL_ALERT_CHANNELS and Apprise's list of URLs",
            )
        if answer.startswith(apprise_child.SENT_ELSEWHERE):
            status, to = answer.removeprefix(apprise_child.SENT_ELSEWHERE).decode(errors="replace").split(" ", 1)
            raise ChannelFailed(
                f"the channel {self._channel} answered {status} and leads to {to}, without the alert",
                "set its URL in SKYCTL_ALERT_CHANNELS to where it leads, such as https in place of http",
            )
        if answer != apprise_child.TAKEN:
            why = answer.removeprefix(apprise_child.NOT_TAKEN).decode(errors="replace")
            raise ChannelFailed(
                f"the channel {self._channel} did not take the alert" + (f": {why}" if why else ""),
                "see that its service is up and its URL still good",
            )

    def end(self) -> None:
        """End the process, if there is one."""
        if self._running:
            process, connection = self._running
            self._running = None
            connection.close()
            process.kill()
            process.wait()

    def _ask(self, alert: Alert) -> bytes:
        """Hand an alert to the process; return its answer. Raises TimeoutError, ConnectionError, OSError."""
        deadline = time.monotonic() + self._limit
        level = severity(alert.kind)
        task = {"title": alert.title, "body": alert.message, "kind": NOTIFY_TYPES.get(level, level)}
        try:
            connection = self._connection()
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            connection.sendall(_line(task))
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            return _read_line(connection)
        except BaseException:  # lest its answer be taken for that to the next alert
            self.end()
            raise

    def _connection(self) -> socket.socket:
        """The socket that is the process's stdin; it is started where there is none."""
        if self._running is None:
            ours, its = socket.socketpair()
            with its, ExitStack() as stack:
                stack.enter_context(ours)
                process = subprocess.Popen(
                    interpreter.command("skyctl.notifiers.apprise_child"),
                    env=_environment(),
                    stdin=its.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                stack.pop_all()
            self._running = process, ours
            ours.sendall(_line({"url": self._url, "parent": os.getpid()}))
        return self._running[1]


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        more = connection.recv(1024)
        if not more:
            raise ConnectionResetError
        line += more
    return line.removesuffix(b"\n")


def _line(document: Mapping[str, object]) -> bytes:
    return json.dumps(document).encode() + b"\n"
