"""The places where a token may travel unencrypted: none but this machine."""

import ipaddress
from urllib.parse import urlsplit


def transport_is_safe(url: str) -> bool:
    """Tell whether the URL is HTTPS, or plain HTTP to a loopback address."""
    return urlsplit(url).scheme == "https" or is_loopback(url)


def is_loopback(url: str) -> bool:
    """Tell whether the URL leads to the machine that asks."""
    return is_loopback_host(urlsplit(url).hostname or "")


def is_loopback_host(host: str) -> bool:
    """Tell whether a host name or address is that of the machine that asks."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
