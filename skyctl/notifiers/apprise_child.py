"""The program that sends alerts by one URL. It is stopped by killing it, since Apprise's threads outlive any other end.

Its stdin is a socket with one JSON document a line, because everybody on the host can see a process's arguments: first
{url, parent}, then {title, body, kind} for each alert, which it answers there with a byte. It ends with `parent`, the
id of the process that started it, or when there are no more.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterable

from skyctl.host import parent_process

TAKEN, NOT_TAKEN, UNREADABLE = b"t", b"n", b"u"


def main() -> None:
    """Send the alerts that stdin holds."""
    first = json.loads(next(sys.stdin.buffer))
    parent_process.end_with(first["parent"], signal.SIGKILL)
    for answer in _send(first["url"], sys.stdin.buffer):
        os.write(sys.stdin.fileno(), answer)


def _send(url: str, alerts: Iterable[bytes]) -> Iterable[bytes]:
    import apprise  # here, since it is slow to load: the parent may end meanwhile, and this process with it

    logging.getLogger("apprise").disabled = True  # its lines hold the URLs, or parts of them
    sender = apprise.Apprise()
    can_be_read = sender.add(url)
    for alert in map(json.loads, alerts):
        kind = apprise.NotifyType(alert["kind"])
        taken = can_be_read and sender.notify(
            title=alert["title"], body=alert["body"], notify_type=kind, body_format=apprise.NotifyFormat.TEXT
        )
        yield TAKEN if taken else NOT_TAKEN if can_be_read else UNREADABLE


if __name__ == "__main__":
    main()
