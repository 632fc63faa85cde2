"""The places where a token may travel unencrypted: none but this machine."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from skyctl.domain.addresses import is_loopback, is_loopback_host
from skyctl.domain.text import without_secrets


def transport_is_safe(url: str) -> bool:
    """Tell whether the URL is HTTPS, or plain HTTP to a loopback address."""
    return urlsplit(url).scheme == "https" or is_loopback(url)


def database_risk(hosts: Sequence[str], ssl_mode: str, *, has_authority: bool) -> str:
    """Tell what somebody on the way to a database can do; empty where there is no way, or the database proves who it
    is. Hosts that are paths are sockets; `require` proves something only where an authority is set."""
    away = [host for host in hosts if not (is_loopback_host(host) or host.startswith(("/", "@")))]
    if not away or ssl_mode in ("verify-full", "verify-ca") or (ssl_mode == "require" and has_authority):
        return ""
    does = {"disable": "is not encrypted", "require": "is encrypted, but whoever answers is believed"}
    way = does.get(ssl_mode, "may be unencrypted, and whoever answers is believed")
    return f"{', '.join(away)}: the connection {way} (sslmode={ssl_mode})"


def engine_risk(docker_host: str | None, *, verified: bool) -> str:
    """Tell who else may command an engine at this address; empty where nobody may."""
    scheme, separator, _ = (docker_host or "unix://").partition("://")
    if verified or (separator and scheme not in ("tcp", "http")):
        return ""
    who = "any user of this machine" if _is_here(docker_host or "") else "whoever reaches it, or is on the way,"
    return f"{without_secrets(docker_host or '')} is plain TCP: {who} may command the engine, and is root of its host"


def _is_here(address: str) -> bool:
    try:
        return is_loopback(address if "://" in address else f"tcp://{address}")
    except ValueError:
        return False
