"""The program that sends alerts by one URL. It is stopped by killing it, since Apprise's threads outlive any other end.

Its stdin is a socket with one JSON document a line, because everybody on the host can see a process's arguments: first
{url, parent}, then {title, body, kind} for each alert, which it answers there with a line: one of the words below,
after SENT_ELSEWHERE where to, after NOT_TAKEN why, as far as that is known. It ends with `parent`, the id of the
process that started it, or when there are no more.
"""

import json
import logging
import os
import signal
import smtplib
import ssl
import sys
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from skyctl.host import parent_process

TAKEN, NOT_TAKEN, UNREADABLE, SENT_ELSEWHERE = b"taken", b"not taken ", b"unreadable", b"elsewhere "
LOSE_THE_BODY = (301, 302, 303)


def main() -> None:
    """Send the alerts that stdin holds."""
    first = json.loads(next(sys.stdin.buffer))
    parent_process.end_with(first["parent"], signal.SIGKILL)
    for answer in _send(first["url"], sys.stdin.buffer):
        os.write(sys.stdin.fileno(), answer + b"\n")


def _send(url: str, alerts: Iterable[bytes]) -> Iterable[bytes]:
    import apprise  # here, since it is slow to load: the parent may end meanwhile, and this process with it

    sender = apprise.Apprise()
    troubles = _note_troubles(logging.getLogger("apprise"))
    sent_elsewhere = _refuse_to_lose_bodies()
    can_be_read = sender.add(url)
    for alert in map(json.loads, alerts):
        kind = apprise.NotifyType(alert["kind"])
        sent_elsewhere.clear()
        troubles.clear()
        taken = can_be_read and sender.notify(
            title=alert["title"], body=alert["body"], notify_type=kind, body_format=apprise.NotifyFormat.TEXT
        )
        why = (troubles[0] if troubles else "").encode("ascii", "replace")
        not_taken = SENT_ELSEWHERE + sent_elsewhere[0].encode() if sent_elsewhere else NOT_TAKEN + why
        yield TAKEN if taken else not_taken if can_be_read else UNREADABLE


def _note_troubles(logger: logging.Logger) -> list[str]:
    """Return the list of what goes wrong from now on: bad answers, and errors, which Apprise logs where it meets them.
    Its lines hold the URLs, or parts of them, and are written nowhere."""
    import requests  # here, as apprise, which sends by it

    troubles: list[str] = []

    class Errors(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            if error := sys.exc_info()[1]:
                troubles.append(_in_words(error))

    logger.handlers, logger.propagate = [Errors()], False
    logger.setLevel(logging.DEBUG)
    send = requests.Session.send

    def noting(session: Any, request: Any, **how: Any) -> Any:
        response = send(session, request, **how)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            known = {status.value: f" {status.phrase}" for status in HTTPStatus}
            troubles.append(f"it answered {response.status_code}{known.get(response.status_code, '')}")
        return response

    requests.Session.send = noting  # type: ignore[method-assign, assignment]
    return troubles


def _in_words(error: BaseException) -> str:
    """Return what went wrong by what began it: in the system's words, and none of a library's, which may hold the
    URL."""
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    for each in reversed(chain):
        if isinstance(each, smtplib.SMTPResponseException):
            return f"it answered {each.smtp_code}"
        if isinstance(each, ssl.SSLError) and each.reason:
            return f"TLS: {each.reason.lower().replace('_', ' ')}"
        if isinstance(each, OSError) and each.strerror and not isinstance(each, ssl.SSLError):
            return each.strerror
    return type(error).__name__


def _refuse_to_lose_bodies() -> list[str]:
    """Have whatever is sent fail where an answer leads elsewhere by a request without the body: it would look as if it
    had arrived. Return the list of where that was, without what may be a secret."""
    import requests  # here, as apprise, which sends by it

    sent_elsewhere: list[str] = []
    rebuild = requests.Session.rebuild_method

    def rebuild_method(session: Any, prepared: Any, response: Any) -> None:
        if response.status_code in LOSE_THE_BODY and prepared.body:
            to = urlsplit(prepared.url)
            port = f":{to.port}" if to.port else ""
            sent_elsewhere.append(f"{response.status_code} {to.scheme}://{to.hostname}{port}")
            raise requests.exceptions.TooManyRedirects(response=response)
        rebuild(session, prepared, response)

    requests.Session.rebuild_method = rebuild_method  # type: ignore[method-assign, assignment]
    return sent_elsewhere


if __name__ == "__main__":
    main()
