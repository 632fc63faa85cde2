"""What is asked of the manager and of the Docker engine, and what their answers mean."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote

import httpcore

from skyagent import address, clock
from skyagent.backoff import LAST_CEILING
from skyagent.connections import CONNECT_PARTS, TROUBLES, Http
from skyagent.errors import ConfigError, EngineAway, EngineDenied, Failing, Failure, Refused, UnknownWorker, Unreachable
from skyagent.pinned import Signed
from skyagent.releases import LARGEST_BYTES, Offer
from skyagent.settings import LONGEST_SECONDS, SHORTEST_SECONDS, Settings
from skyagent.tokens import Tokens

log = logging.getLogger(__name__)

LARGEST_ANSWER = 65536
LARGEST_LIST = 4 * 2**20
SERVICE_LABEL = "com.docker.swarm.service.id"
REFUSALS = (401, 403)
# Conflicts that waiting does not end: the token is another machine's, or this host is a copy of one that lives.
LASTING = ("TOKEN_IN_USE", "WORKER_CLONED")


def engine_info(http: Http, timeout_seconds: float) -> dict[str, object]:
    """The Docker engine's `GET /info`. Raises EngineAway."""
    document = _document(_ask_engine(http, "/info", timeout_seconds, LARGEST_ANSWER))
    if not document:
        raise EngineAway("the answer is no JSON object")
    return document


def swarm_containers(http: Http, timeout_seconds: float) -> list[object]:
    """The engine's `GET /containers/json` of what runs here of the swarm's services. Raises EngineAway."""
    filters = quote(json.dumps({"label": [SERVICE_LABEL]}, separators=(",", ":")))
    body = _ask_engine(http, f"/containers/json?filters={filters}", timeout_seconds, LARGEST_LIST)
    if not body:
        raise EngineAway(f"the list of containers is empty, or longer than {LARGEST_LIST >> 20} MiB")
    try:
        containers = json.loads(body)
    except (ValueError, RecursionError):
        containers = None
    if not isinstance(containers, list):
        raise EngineAway("the answer is no JSON list")
    return containers


def _ask_engine(http: Http, path: str, timeout_seconds: float, most: int) -> bytes:
    """The body of the engine's answer; empty where it is longer than `most`. Raises EngineAway."""
    try:
        with http.ask_engine(path) as response:
            status, body = response.status, _body(response, time.monotonic() + timeout_seconds, most)
    except TROUBLES as error:
        kind = EngineDenied if _is_caused_by(error, PermissionError) else EngineAway
        raise kind(f"{type(error).__name__}: {error}") from error
    if not _is_success(status):
        raise EngineAway(f"the answer is {status}")
    return body


class Answer(NamedTuple):
    """The manager's answer to a heartbeat: the seconds to the next one, a newer agent, a new token, if it says so.

    The last two are none where anybody on the way could have said so.
    """

    next_seconds: float | None
    offer: Offer | None
    new_token: object = None


class Manager:
    """The manager as one worker sees it. Every method raises a `Failure` where the report was not accepted."""

    def __init__(self, http: Http, settings: Settings, tokens: Tokens, timeout_seconds: float) -> None:
        self._http = http
        self._timeout_seconds = timeout_seconds
        self._tokens = tokens
        self._settings = settings
        self._local_address = ""
        self._workers = f"{settings.api_url}/api/workers"
        self._heartbeat = f"{self._workers}/{settings.worker_id}/heartbeat"
        self._agents = f"{settings.api_url}/api/agent"

    def local_address(self) -> str:
        """The address of this host on the connection that the last report used; before the first, on one that is made
        to find out. Raises Unreachable."""
        if not self._local_address:
            seconds = self._timeout_seconds
            try:
                with _deadline(seconds):
                    self._local_address = address.towards(*self._settings.first_hop, seconds / CONNECT_PARTS)
            except OSError as error:
                raise Unreachable(f"{type(error).__name__}: {error}") from None
        return self._local_address if self._settings.loopback else address.reachable(self._local_address)

    def register(self, registration: dict[str, Any]) -> object:
        """Tell what this host is, and what its clock shows at this moment; returns a new token, if there is one, unless
        anybody on the way could have said so."""
        metadata = {**registration["metadata"], "clock": clock.shown()}
        document = self._post(f"{self._workers}/register", {**registration, "metadata": metadata})
        return document.get("newToken") if self._settings.private else None

    def heartbeat(self, load: dict[str, object]) -> Answer:
        """Tell how loaded this host is."""
        document = self._post(self._heartbeat, load)
        seconds = _next_seconds(document.get("nextHeartbeatSeconds"))
        if not self._settings.private:
            return Answer(seconds, None)
        return Answer(seconds, _offer(document.get("agent")), document.get("newToken"))

    def fetch_agent(self, sha256: str, size: int) -> bytes:
        """The archive of a release that the manager offers, or what else it sends of at most that size."""
        response, body = self._ask("GET", f"{self._agents}/{sha256}", None, size)
        if _is_success(response.status):
            return body
        document = _document(body)
        raise _failure(response, document, self._clean(_reason(response, document)))

    def _post(self, url: str, body: dict[str, object]) -> dict[str, object]:
        response, answer = self._ask("POST", url, body, LARGEST_ANSWER)
        document = _document(answer)
        if _is_success(response.status) and document.get("success") is True:
            return document
        raise _failure(response, document, self._clean(_reason(response, document)))

    def _ask(self, method: str, url: str, body: dict[str, object] | None, most: int) -> tuple[httpcore.Response, bytes]:
        """Send with the current token; where that is refused, with the one before, which may still be the good one."""
        tokens = self._tokens
        try:
            with _deadline(self._timeout_seconds):
                response, answer = self._send(method, url, body, most, tokens.current)
                if response.status in REFUSALS and tokens.previous:
                    again = self._send(method, url, body, most, tokens.previous)
                    if _is_success(again[0].status):
                        tokens.fall_back()
                        return again
                return response, answer
        except (*TROUBLES, socket.timeout) as error:
            self._http.start_over()
            raise Unreachable(self._clean(f"{type(error).__name__}: {error}")) from None

    def _send(
        self, method: str, url: str, body: dict[str, object] | None, most: int, token: str
    ) -> tuple[httpcore.Response, bytes]:
        """Send; once more where the connection broke, as the manager may close a kept one at the very moment of use.

        Whatever is sent may be repeated without harm.
        """
        try:
            return self._send_once(method, url, body, most, token)
        except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
            return self._send_once(method, url, body, most, token)
        except httpcore.ConnectError as error:
            if not (_is_caused_by(error, ssl.SSLCertVerificationError) and self._trusts_again()):
                raise
            return self._send_once(method, url, body, most, token)

    def _trusts_again(self) -> bool:
        """Read the trusted certificates again where they have changed. Raises Unreachable where they cannot be used."""
        try:
            changed = self._http.trust_again()
        except ConfigError as error:
            raise Unreachable(str(error)) from None
        if changed:
            log.info("action=certificates_read_again reason='the manager could not be verified by the former ones'")
        return changed

    def _send_once(
        self, method: str, url: str, body: dict[str, object] | None, most: int, token: str
    ) -> tuple[httpcore.Response, bytes]:
        with self._http.ask_manager(method, url, body, token) as response:
            self._local_address = response.extensions["network_stream"].get_extra_info("client_addr")[0]
            return response, _body(response, time.monotonic() + self._timeout_seconds, most)

    def _clean(self, text: str) -> str:
        """Shorten a text of others, and remove the token that it may repeat."""
        return self._tokens.scrub(text)[:200]


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    """Tell whether an error is of this kind, or comes from one, as far as the libraries' errors tell."""
    cause = error.__cause__ or error.__context__
    return isinstance(error, kind) or (cause is not None and _is_caused_by(cause, kind))


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise socket.timeout when the block takes longer, in the main thread alone: the library limits each step, not the
    whole."""
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _time_is_up(_number: int, _frame: FrameType | None) -> NoReturn:
    raise socket.timeout("timed out")


def _body(response: httpcore.Response, deadline: float, most: int) -> bytes:
    """The body of an answer; empty where it is longer. Raises ReadTimeout after the deadline."""
    body = b""
    for part in response.iter_stream():
        body += part
        if len(body) > most:
            return b""
        if time.monotonic() > deadline:
            raise httpcore.ReadTimeout("timed out")
    return body


def _document(body: bytes) -> dict[str, object]:
    """The JSON object that a body holds; empty where there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _next_seconds(value: object) -> float | None:
    """The seconds until the manager wants the next heartbeat; None where it names no reasonable number."""
    if isinstance(value, (int, float)) and value is not True and SHORTEST_SECONDS <= value <= LONGEST_SECONDS:
        return value
    return None


def _offer(value: object) -> Offer | None:
    """The release that an answer offers; None where it offers none that could be followed."""
    if not isinstance(value, dict):
        return None
    sha256, version, size, offered_at, signature = map(
        value.get, ("sha256", "version", "size", "offeredAt", "signature")
    )
    if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
        return None
    if not (isinstance(size, int) and size is not True and 0 < size <= LARGEST_BYTES):
        return None
    return Offer(Signed(str(version)[:64], sha256, size, str(signature)[:128]), str(offered_at)[:64])


def _reason(response: httpcore.Response, document: dict[str, object]) -> str:
    """The answer in one line: its status, with the code and message of the manager's error."""
    error = document.get("error")
    if isinstance(error, dict):
        parts = [part for part in (error.get("code"), error.get("message")) if isinstance(part, str)]
        return f"{response.status} {': '.join(parts)}"
    phrase = response.extensions["reason_phrase"].decode("ascii", "replace")
    return f"{response.status} {phrase}, not the answer of a manager"


def _failure(response: httpcore.Response, document: dict[str, object], reason: str) -> Failure:
    """The kind of failure that an answer means."""
    error = document.get("error")
    if response.status in REFUSALS or (isinstance(error, dict) and error.get("code") in LASTING):
        return Refused(reason)
    if response.status == 404:
        return UnknownWorker(reason)
    named = {name.lower(): value for name, value in response.headers}
    wait = named.get(b"retry-after", b"").decode("ascii", "replace")
    return Failing(reason, min(float(wait), LAST_CEILING) if wait.isdecimal() else 0.0)
