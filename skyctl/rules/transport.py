"""Where a token may travel unencrypted: nowhere but on this machine."""

import ipaddress
from urllib.parse import urlsplit


def transport_is_safe(url: str) -> bool:
    """Whether the URL is HTTPS, or plain HTTP to a loopback address."""
    return urlsplit(url).scheme == "https" or is_loopback(url)


def is_loopback(url: str) -> bool:
    """Whether the URL leads to the machine that asks."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
