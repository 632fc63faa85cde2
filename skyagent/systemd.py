"""The service manager's notification protocol, sd_notify(3): ready, status, watchdog."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Supervisor:
    """The service manager that started this process. Without a NOTIFY_SOCKET, messages are dropped."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_seconds = _watchdog_seconds(environ) if path else 0.0

    def notify(self, *lines: str) -> None:
        """Send one message of sd_notify lines. Never waits or fails where nobody listens."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.debug("action=notify_failed reason=%r", str(error))

    def alive(self) -> None:
        """Feed the watchdog, if there is one."""
        if self.watchdog_seconds:
            self.notify("WATCHDOG=1")

    def pause(self, seconds: float) -> None:
        """Wait, feeding the watchdog four times in its period."""
        end = time.monotonic() + seconds
        self.alive()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self.watchdog_seconds / 4 or left))
            self.alive()


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """The watchdog's period; 0 where it is off or meant for another process."""
    period, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not period.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(period) / 1e6
