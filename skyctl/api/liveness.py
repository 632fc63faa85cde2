"""A sign of life of this `serve`, every second: while one is written, workers can be heard, and their silence
counts. It is written only once a heartbeat could be."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from skyctl.domain.errors import SkyctlError
from skyctl.host.condition import Condition
from skyctl.host.vital import VitalLoop
from skyctl.operations.shared import clock, outages
from skyctl.operations.shared.context import Context

EVERY_SECONDS = 1.0
BOUND_SECONDS = 30.0  # twice what a database may take that does not answer

log = logging.getLogger(__name__)

Probe = Callable[[], Coroutine[Any, Any, None]]


def begin(context: Context, probe: Probe) -> None:
    """Write the sign of life from now on until the process ends, each time that `probe` on this thread's event loop has
    returned: that raises SkyctlError where no heartbeat can be written."""
    VitalLoop("presence", _Signs(context, probe, asyncio.get_running_loop()).write, BOUND_SECONDS).start()


class _Signs:
    """The signs of life of this process."""

    def __init__(self, context: Context, probe: Probe, loop: asyncio.AbstractEventLoop) -> None:
        self._context, self._probe, self._loop = context, probe, loop
        self._who = uuid4(), socket.gethostname(), os.getpid()
        self._begun = False
        self._writing = Condition(log, "presence_not_written", "presence_written")

    def write(self) -> float:
        """Write one; return in how many seconds the next is due."""
        probing = self._probe()
        try:
            future = asyncio.run_coroutine_threadsafe(probing, self._loop)
        except RuntimeError:  # it is closed: the process ends
            probing.close()
            return EVERY_SECONDS
        try:
            future.result()
            for event in clock.follow_back(self._context, "serve"):
                log.warning("action=%s reason=%r", event.kind, event.reason)
            (outages.touch if self._begun else outages.begin)(self._context, *self._who)
            self._begun = True
            self._writing.works()
        except SkyctlError as error:
            self._writing.failed(error.message)
        return EVERY_SECONDS
