"""A sign of life of this `serve`, every second: while one is written, workers can be heard, and their silence
counts. It is written only once a heartbeat could be."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from skyctl.domain.errors import SkyctlError
from skyctl.operations.shared import clock, outages
from skyctl.operations.shared.context import Context

EVERY_SECONDS = 1.0

log = logging.getLogger(__name__)

Probe = Callable[[], Coroutine[Any, Any, None]]


def begin(context: Context, probe: Probe) -> None:
    """Write the sign of life from now on until the process ends, each time that `probe` on this thread's event loop has
    returned: that raises SkyctlError where no heartbeat can be written."""
    loop = asyncio.get_running_loop()
    threading.Thread(target=_write, args=[context, probe, loop], name="presence", daemon=True).start()


def _write(context: Context, probe: Probe, loop: asyncio.AbstractEventLoop) -> None:
    instance, hostname, pid = uuid4(), socket.gethostname(), os.getpid()
    write, is_written, pause = outages.begin, True, threading.Event()
    while not loop.is_closed():
        try:
            asyncio.run_coroutine_threadsafe(probe(), loop).result()
            for event in clock.follow_back(context, "serve"):
                log.warning("action=%s reason=%r", event.kind, event.reason)
            write(context, instance, hostname, pid)
            write, is_written = outages.touch, True
        except SkyctlError as error:
            if is_written:
                log.warning("action=presence_not_written reason=%s", error.message)
            is_written = False
        pause.wait(EVERY_SECONDS)
