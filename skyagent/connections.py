"""The connections to the manager, by TCP, TLS and a proxy, and to the Docker engine, by its socket.

They are those of httpcore, which httpx is made of: httpx itself would be 3 MB more on each host. See ADR 0087.
"""

from __future__ import annotations

import json
import ssl
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import httpcore

from skyagent import __version__
from skyagent.errors import ConfigError
from skyagent.settings import Settings

AGENT = f"skyagent/{__version__}"
# A request needs a name, though there is none at the engine's socket.
ENGINE = "http://docker.invalid"
# A connection that the manager keeps open is used again by the next heartbeat: no new TLS handshake every 30 s.
KEEP_ALIVE_SECONDS = 120.0
CONNECT_PARTS = 3
# What the library raises where no answer comes.
TROUBLES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class Http:
    """The connections that everything shares: those to the manager, and those to the engine."""

    def __init__(self, settings: Settings, timeout_seconds: float) -> None:
        self._settings = settings
        # A part of the whole for each address, so that one that nobody answers at leaves time for the next.
        waits = dict.fromkeys(("read", "write", "pool"), timeout_seconds)
        self._extensions = {"timeout": {**waits, "connect": timeout_seconds / CONNECT_PARTS}}
        self._trusted = _trusted(settings)
        self._trust = _trust(settings)
        self._to_manager = _connections(settings, self._trust)
        # None is kept: whoever took the socket away, or put another engine behind it, is met at the next question.
        self._to_engine = httpcore.ConnectionPool(uds=settings.docker_socket, max_keepalive_connections=0)

    def ask_manager(
        self, method: str, url: str, body: dict[str, Any] | None, token: str
    ) -> AbstractContextManager[httpcore.Response]:
        """Send a request. Raises one of TROUBLES."""
        headers = {"Authorization": f"Bearer {token}"}
        if body is None:
            return self._stream(self._to_manager, method, url, headers)
        content = json.dumps(body).encode()
        return self._stream(self._to_manager, method, url, {**headers, "Content-Type": "application/json"}, content)

    def ask_engine(self, path: str) -> AbstractContextManager[httpcore.Response]:
        """Send a GET; the token stays here. Raises one of TROUBLES."""
        return self._stream(self._to_engine, "GET", f"{ENGINE}{path}", {})

    def _stream(
        self, pool: httpcore.ConnectionPool, method: str, url: str, more: dict[str, str], content: bytes | None = None
    ) -> AbstractContextManager[httpcore.Response]:
        # The library itself would write an IPv6 address without its brackets.
        host = urlsplit(url).netloc
        headers = {"Host": host, "User-Agent": AGENT, "Accept-Encoding": "identity", **more}
        return pool.stream(method, url, headers=[*headers.items()], content=content, extensions=self._extensions)

    def trust_again(self) -> bool:
        """Read the file of the certificates that may vouch for the manager again where it has changed; tell whether it
        had. Raises ConfigError, once for each change, where it cannot be used; then what was read before is trusted
        on."""
        trusted, before = _trusted(self._settings), self._trusted
        self._trusted = trusted
        if trusted == before:
            return False
        self._trust = _trust(self._settings)
        self.start_over()
        return True

    def start_over(self) -> None:
        """Leave the connections to the manager for new ones. They are not closed by order: where an alarm has ended a
        request, it may have come while the library held its lock, which nothing would ever take again."""
        self._to_manager = _connections(self._settings, self._trust)


def _connections(settings: Settings, trust: ssl.SSLContext | None) -> httpcore.ConnectionPool:
    """The connections to the manager; none is made before it is needed."""
    if settings.proxy is None:
        return httpcore.ConnectionPool(trust, keepalive_expiry=KEEP_ALIVE_SECONDS)
    url = urlsplit(settings.proxy.url)
    login = [unquote_to_bytes(part or "") for part in (url.username, url.password)]
    return httpcore.HTTPProxy(
        settings.proxy.url,
        proxy_auth=(login[0], login[1]) if any(login) else None,
        ssl_context=trust,
        keepalive_expiry=KEEP_ALIVE_SECONDS,
    )


def _trusted(settings: Settings) -> tuple[int, ...]:
    """What tells one content of the file from another; empty where there is no file, or none is used."""
    path = settings.ca_file or ssl.get_default_verify_paths().cafile
    try:
        status = Path(path).stat() if settings.encrypted and path else None
    except OSError:
        return ()
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else ()


def _trust(settings: Settings) -> ssl.SSLContext | None:
    """The certificates that may vouch for the manager: `caFile` alone, else the machine's own store; none without TLS.

    Raises ConfigError for a `caFile` that cannot be used.
    """
    if not settings.encrypted:
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "it holds no certificate"
        raise ConfigError(
            f"caFile {settings.ca_file} cannot be used: {reason}", "name a file of PEM certificates"
        ) from None
