"""Where a token may travel unencrypted: nowhere but on this machine."""

import ipaddress
from urllib.parse import urlsplit


def transport_is_safe(url: str) -> bool:
    """Whether the URL is HTTPS, or plain HTTP to a loopback address."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
