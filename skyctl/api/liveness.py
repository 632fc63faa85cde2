"""A sign of life every second: while it is written, this process can hear workers, and their silence counts."""

import logging
import os
import socket
import threading
from uuid import uuid4

from skyctl.domain.errors import SkyctlError
from skyctl.operations.shared import outages
from skyctl.operations.shared.context import Context

EVERY_SECONDS = 1.0

log = logging.getLogger(__name__)


def begin(context: Context) -> None:
    """Give the sign from now on until the process ends."""
    threading.Thread(target=_give, args=[context], name="presence", daemon=True).start()


def _give(context: Context) -> None:
    instance, hostname, pid = uuid4(), socket.gethostname(), os.getpid()
    give, heard, pause = outages.begin, True, threading.Event()
    while True:
        try:
            give(context, instance, hostname, pid)
            give, heard = outages.touch, True
        except SkyctlError as error:
            if heard:
                log.warning("action=presence_not_written reason=%s", error.message)
            heard = False
        pause.wait(EVERY_SECONDS)
