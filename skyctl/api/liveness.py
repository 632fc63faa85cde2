"""A sign of life of this `serve`, every second: while one is written, workers can be heard, and their silence
counts."""

import logging
import os
import socket
import threading
from uuid import uuid4

from skyctl.domain.errors import SkyctlError
from skyctl.host.condition import Condition
from skyctl.operations.shared import outages
from skyctl.operations.shared.context import Context

EVERY_SECONDS = 1.0

log = logging.getLogger(__name__)


def begin(context: Context) -> None:
    """Write the sign of life from now on until the process ends."""
    threading.Thread(target=_write, args=[context], name="presence", daemon=True).start()


def _write(context: Context) -> None:
    instance, hostname, pid = uuid4(), socket.gethostname(), os.getpid()
    write, pause = outages.begin, threading.Event()
    writing = Condition(log, "presence_not_written", "presence_written")
    while True:
        try:
            write(context, instance, hostname, pid)
            write = outages.touch
            writing.works()
        except SkyctlError as error:
            writing.failed(error.message)
        pause.wait(EVERY_SECONDS)
