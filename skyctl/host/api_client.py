"""The API as its clients ask it: JSON both ways over one kept connection, and streams that tell of news.

By the standard library, since a command shall answer at once: the library that the rest uses takes 90 ms to load.
"""

import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from select import select
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from skyctl.domain.errors import (
    HINT,
    AnsweredError,
    Busy,
    DatabaseUnavailable,
    ManagerUnavailable,
    ManagerUntrusted,
    SkyctlError,
)
from skyctl.host.api_address import Address

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 90.0  # a monitor may have to do it first, for which `serve` waits a minute
MOST_ANSWER_BYTES = 64 * 1024 * 1024
Document = dict[str, Any]


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CONNECT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ApiClient:
    """A client of one address, whose connection is kept until `close`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._base = urlsplit(address.url).path.rstrip("/")
        self._connection = _connection(address)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def ask(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Document | None = None
    ) -> Document:
        """Return the document of the answer. Raises AnsweredError with what the manager says, ManagerUnavailable where
        it does not, or does not say anything that is ours."""
        response = self._sent(method, path, query, body)
        document = self._read(response)
        if response.status >= 400 or not document.get("success", True):
            raise _error(response, document)
        return document

    @contextmanager
    def listening(self, path: str) -> "Iterator[News]":
        """Open a stream of the API, by a connection of its own, to be woken by what it sends. Raises as `ask` does."""
        other = ApiClient(self.address)
        try:
            response = other._sent("GET", path, None, None)
            if response.status >= 400:
                raise _error(response, other._read(response))
            yield News(self.address, response)
        finally:
            other.close()

    def _read(self, response: HTTPResponse) -> Document:
        try:
            document = json.loads(response.read(MOST_ANSWER_BYTES + 1))
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise unavailable(self.address, error) from error
        except ValueError:
            document = None
        if not isinstance(document, dict):
            self._connection.close()
            told = f"{self.address.shown} answers {response.status}, and that is no answer of skyctl"
            raise ManagerUnavailable(told, "check the address: is it that of `skyctl serve`?")
        return document

    def _connect(self) -> None:
        """Have a connection that is open: one that the manager has closed meanwhile would fail where it is used."""
        kept: socket.socket | None = self._connection.sock
        if kept and select([kept], [], [], 0)[0]:
            self._connection.close()
            kept = None
        if kept is None:
            self._connection.connect()
            opened: Any = self._connection.sock
            opened.settimeout(ANSWER_SECONDS)

    def _sent(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Document | None,
    ) -> HTTPResponse:
        url = self._base + path + (f"?{urlencode(query)}" if query else "")
        sent = {"User-Agent": "skyctl", "Accept": "application/json"}
        if self.address.token:
            sent["Authorization"] = f"Bearer {self.address.token}"
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        try:
            self._connect()
            self._connection.request(method, url, content, sent)
            return self._connection.getresponse()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise unavailable(self.address, error) from error


class News:
    """Becomes readable when a stream has sent something: that there is news, whatever it says."""

    def __init__(self, address: Address, response: HTTPResponse) -> None:
        self._address, self._response = address, response
        self._descriptor = response.fileno()
        os.set_blocking(self._descriptor, False)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._descriptor

    def drain(self) -> None:
        """Take what has arrived, without waiting. Raises ManagerUnavailable where the stream has ended."""
        with suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass
            raise ManagerUnavailable(f"{self._address.shown} has ended the stream", "ask again")


def _connection(address: Address) -> HTTPConnection:
    if address.socket_path:
        return _UnixConnection(address.socket_path)
    parts = urlsplit(address.url)
    if parts.scheme == "https":
        verified = ssl.create_default_context(cadata=address.authority or None)
        return HTTPSConnection(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS, context=verified)
    return HTTPConnection(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)


def _error(response: HTTPResponse, document: Document) -> SkyctlError:
    said, status = document.get("error"), response.status
    told = said if isinstance(said, dict) else {"message": f"the manager answers {status}"}
    code, hint = told.get("code"), unquote(response.headers.get(HINT, ""))
    kind = _KINDS.get(str(code), SkyctlError)
    if code == "NOT_FOUND":  # a route, and not what an operation looked for
        return ManagerUnavailable("the manager knows no such operation", "is it of another version? `skyctl version`")
    # what passes by itself is as a manager that does not answer
    passes = code in (DatabaseUnavailable.code, Busy.code)
    error = (ManagerUnavailable if passes else AnsweredError)(str(told.get("message")).removesuffix(f": {hint}"), hint)
    error.code, error.http_status, error.exit_code = str(code or kind.code), status, kind.exit_code
    return error


def unavailable(address: Address, error: Exception) -> ManagerUnavailable:
    """Return the error for an address that could not be asked, or does not answer as HTTP does."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ManagerUntrusted(
            f"{address.shown}: its certificate is not trusted: {error.verify_message}",
            "log in again if it is known why it has another one: `skyctl login`",
        )
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return ManagerUnavailable(f"{address.shown} does not answer: {words}", "is `skyctl serve` running there?")


def _kinds(kind: type[SkyctlError]) -> Iterator[type[SkyctlError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)


_ERRORS: list[type[SkyctlError]] = [SkyctlError, *_kinds(SkyctlError)]
_KINDS = {kind.code: kind for kind in reversed(_ERRORS)}
"""Of each code the first class that has it: the one that it was made for."""
