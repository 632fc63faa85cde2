"""Addresses as others say them: of a client, and of the machine that asks itself."""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit


def client_address(said: str | None) -> str | None:
    """Return an address as it is written usually, an IPv4 one as such; None where a text is none, or has a port or a
    zone that means something elsewhere only."""
    try:
        address = ip_address(said or "")
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return str(address.ipv4_mapped or address)
    return str(address)


def is_loopback(url: str) -> bool:
    """Tell whether the URL leads to the machine that asks."""
    return is_loopback_host(urlsplit(url).hostname or "")


def is_loopback_host(host: str) -> bool:
    """Tell whether a host name or address is that of the machine that asks."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
