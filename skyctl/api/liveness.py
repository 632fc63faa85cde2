"""A sign of life of this `serve`, every second: while one is written, workers can be heard, and their silence
counts."""

import logging
import os
import socket
from uuid import uuid4

from skyctl.domain.errors import SkyctlError
from skyctl.host.vital import VitalLoop
from skyctl.operations.shared import outages
from skyctl.operations.shared.context import Context

EVERY_SECONDS = 1.0
BOUND_SECONDS = 30.0  # twice what a database may take that does not answer

log = logging.getLogger(__name__)


def begin(context: Context) -> None:
    """Write the sign of life from now on until the process ends."""
    VitalLoop("presence", _Signs(context).write, BOUND_SECONDS).start()


class _Signs:
    """The signs of life of this process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._who = uuid4(), socket.gethostname(), os.getpid()
        self._begun, self._is_written = False, True

    def write(self) -> float:
        """Write one; return in how many seconds the next is due."""
        try:
            (outages.touch if self._begun else outages.begin)(self._context, *self._who)
            self._begun = self._is_written = True
        except SkyctlError as error:
            if self._is_written:
                log.warning("action=presence_not_written reason=%s", error.message)
            self._is_written = False
        return EVERY_SECONDS
