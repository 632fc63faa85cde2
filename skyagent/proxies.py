"""The proxy between this host and its manager, read from the environment as curl reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from skyagent.errors import ConfigError

SCHEMES = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A proxy: the URL may hold a password and is never shown; `address` is its host and port."""

    url: str
    address: tuple[str, int]


def proxy_for(host: str, *, encrypted: bool, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy by which `host` is reached; none where the environment names none, or excepts the host.

    Raises ConfigError, which names the variable, for a proxy that cannot be used.
    """
    found = _first(environ, "https_proxy" if encrypted else "http_proxy", "all_proxy")
    if found is None or _is_excepted(host, environ):
        return None
    variable, value = found
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
        is_host = bool(ip_address(name)) if ":" in name else bool(re.fullmatch(r"[\w.-]+", name, re.ASCII))
        if is_host and port != 0 and parts.scheme in SCHEMES and re.fullmatch(r"[!-~]+", url):
            return Proxy(url, (name, port or SCHEMES[parts.scheme]))
    except ValueError:  # no number for a port, or no IPv6 address within the brackets
        pass
    shown = re.sub("^(.*//)?.*@", r"\1***@", value)[:100]
    raise ConfigError(f"{variable} is {shown!r}", "write it as http://HOST:PORT, without spaces, or unset it")


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """The first of these variables that is not empty, with its value; each is looked for in lower case before upper."""
    for name in names:
        for variable in (name, name.upper()):
            if environ.get(variable, "").strip():
                return variable, environ[variable].strip()
    return None


def _is_excepted(host: str, environ: Mapping[str, str]) -> bool:
    """Tell whether NO_PROXY holds the host; whatever in it means nothing is passed over, as curl does."""
    _, exceptions = _first(environ, "no_proxy") or ("", "")
    return exceptions == "*" or any(_holds(entry, host) for entry in re.split(r"[,\s]+", exceptions) if entry)


def _holds(entry: str, host: str) -> bool:
    """Tell whether an entry is the host, a domain above it, or a network that it is in."""
    try:
        address = ip_address(host)
    except ValueError:
        domain, name = entry.lower().lstrip(".").rstrip("."), host.lower().rstrip(".")
        return bool(domain) and (name == domain or name.endswith(f".{domain}"))
    try:
        return address in ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
    except ValueError:
        return False
