"""The program that sends one alert by one URL. It is stopped by killing it, since Apprise's threads outlive any other
end.

It reads a JSON document {url, title, body, kind, parent} from stdin, because everybody on the host can see a process's
arguments; its exit code is the outcome. It ends with `parent`, the id of the process that started it.
"""

import json
import logging
import signal
import sys
from typing import Any

from skyctl.host import parent_process

TAKEN, NOT_TAKEN, UNREADABLE = 0, 1, 2


def main() -> int:
    """Send the alert that stdin holds; return the exit code."""
    task = json.load(sys.stdin.buffer)
    parent_process.end_with(task["parent"], signal.SIGKILL)
    return _send(task)


def _send(task: dict[str, Any]) -> int:
    import apprise  # here, since it is slow to load: the parent may end meanwhile, and this process with it

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
