"""Requests to the API as a host would make them: does it answer, is it ours, and which installation does it serve?"""

import json
import ssl
import threading
import time
from typing import Any, NamedTuple
from urllib.request import getproxies

import httpx

from skyctl.domain.text import without_secrets_of

LARGEST_ANSWER = 4096


class Answer(NamedTuple):
    """The duration of the answer, in seconds, and what is wrong with it; empty where it is the API's.

    `ready`: what /readyz answered, where that was 200 and came in time; `unready`: what it did else.
    """

    seconds: float
    trouble: str
    ready: dict[str, Any] | None = None
    unready: str = "/readyz does not say that it is ready"


def probe(api_url: str, limit_seconds: float, *, by_proxy: bool, authority: str = "") -> Answer:
    """Ask for /healthz, then for /readyz. `by_proxy`: by the proxies of the environment, if it names some. `authority`:
    the PEM certificate that alone may vouch for it, if not the system's own.

    The requests run in a thread, since the library's limits end neither a name look-up nor a peer that sends one byte
    after the other.
    """
    answers: list[Answer] = []
    thread = threading.Thread(target=_ask, args=[answers, api_url, limit_seconds, by_proxy, authority], daemon=True)
    thread.start()
    thread.join(limit_seconds)
    return answers[-1] if answers else Answer(limit_seconds, f"no answer within {limit_seconds:g} s")


def _ask(answers: list[Answer], api_url: str, limit_seconds: float, by_proxy: bool, authority: str) -> None:
    """Append the answer once /healthz is known, and again with what /readyz says."""
    started = time.monotonic()
    try:
        context = ssl.create_default_context(cadata=authority or None)
        with httpx.Client(verify=context, trust_env=by_proxy, timeout=limit_seconds) as client:
            with client.stream("GET", f"{api_url}/healthz") as response:
                answer = Answer(time.monotonic() - started, _judge(response))
            answers.append(answer)
            if not answer.trouble:
                answers.append(_with_readiness(answer, client, api_url))
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:  # the last two for proxies
        if not answers:
            words = str(error) or type(error).__name__
            for proxy in getproxies().values() if by_proxy else ():
                words = without_secrets_of(proxy, words)
            answers.append(Answer(time.monotonic() - started, words))


def _judge(response: httpx.Response) -> str:
    if response.status_code != httpx.codes.OK:
        return f"it answers {response.status_code} {response.reason_phrase}"
    body = next(response.iter_bytes(LARGEST_ANSWER), b"")
    return "" if body.replace(b" ", b"") == b'{"status":"ok"}' else "something else answers there, not `skyctl serve`"


def _with_readiness(answer: Answer, client: httpx.Client, api_url: str) -> Answer:
    with client.stream("GET", f"{api_url}/readyz") as response:
        if response.status_code != httpx.codes.OK:
            status = f"/readyz answers {response.status_code} {response.reason_phrase}"
            is_away = response.status_code == httpx.codes.SERVICE_UNAVAILABLE
            return answer._replace(unready=f"it is not ready: {status}" if is_away else status)
        document = json.loads(next(response.iter_bytes(LARGEST_ANSWER), b""))
    return answer._replace(ready=document) if isinstance(document, dict) else answer
