"""Reports of a long-running command to the service manager, sd_notify(3): that it is ready, alive, and how it
stands."""

import os
import socket
from contextlib import suppress


def notify(*lines: str) -> None:
    """Send one message; without a service manager, or with one that does not listen, it goes nowhere."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        sender.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def watchdog_seconds() -> float | None:
    """The longest that the service manager waits for a sign of life; None where it does not wait for one."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for_us = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdecimal() and meant_for_us else None
