"""One HTTP request to the API, as a host would make it: does it answer, and is it ours?"""

import ssl
import threading
import time
from typing import NamedTuple

import httpx

LARGEST_ANSWER = 4096


class Answer(NamedTuple):
    """How long the answer took, and what is wrong with it; empty where it is the API's."""

    seconds: float
    trouble: str


def probe(api_url: str, limit_seconds: float, *, by_proxy: bool, authority: str = "") -> Answer:
    """Ask for /healthz. `by_proxy`: by the proxies of the environment, if it names some. `authority`: the PEM
    certificate that alone may vouch for it, if not the system's own.

    In a thread, since neither a name look-up nor a peer that says one byte after the other is ended by the library's
    limits.
    """
    answers: list[Answer] = []
    asking = threading.Thread(
        target=lambda: answers.append(_ask(api_url, limit_seconds, by_proxy, authority)), daemon=True
    )
    asking.start()
    asking.join(limit_seconds)
    return answers[0] if answers else Answer(limit_seconds, f"no answer within {limit_seconds:g} s")


def _ask(api_url: str, limit_seconds: float, by_proxy: bool, authority: str) -> Answer:
    started = time.monotonic()
    try:
        with (
            httpx.Client(
                verify=ssl.create_default_context(cadata=authority or None), trust_env=by_proxy, timeout=limit_seconds
            ) as client,
            client.stream("GET", f"{api_url}/healthz") as response,
        ):
            trouble = _judge(response)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:  # the last two for proxies
        trouble = str(error) or type(error).__name__
    return Answer(time.monotonic() - started, trouble)


def _judge(response: httpx.Response) -> str:
    if response.status_code != httpx.codes.OK:
        return f"it answers {response.status_code} {response.reason_phrase}"
    body = next(response.iter_bytes(LARGEST_ANSWER), b"")
    return "" if body.replace(b" ", b"") == b'{"status":"ok"}' else "something else answers there, not `skyctl serve`"
