"""The program that sends one alert by one URL, and is given up by killing it: Apprise's threads would outlive any other
end.

It reads a JSON document {url, title, body, kind, parent} from stdin, since its arguments are seen by everybody on the
host, and says by its exit code what came of it. It ends with the process `parent`, which started it.
"""

import ctypes
import json
import logging
import os
import signal
import sys
from typing import Any

TAKEN, NOT_TAKEN, UNREADABLE = 0, 1, 2
PR_SET_PDEATHSIG = 1


def main() -> int:
    """Send what stdin holds; the exit code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    task = json.load(sys.stdin.buffer)
    if os.getppid() != task["parent"]:  # it ended before we asked to end with it
        return NOT_TAKEN
    return _send(task)


def _send(task: dict[str, Any]) -> int:
    import apprise

    logging.getLogger("apprise").disabled = True  # its lines hold the URLs, or parts of them
    sender = apprise.Apprise()
    if not sender.add(task["url"]):
        return UNREADABLE
    kind = apprise.NotifyType(task["kind"])
    taken = sender.notify(
        title=task["title"], body=task["body"], notify_type=kind, body_format=apprise.NotifyFormat.TEXT
    )
    return TAKEN if taken else NOT_TAKEN


if __name__ == "__main__":
    sys.exit(main())
