"""How the values of settings are read: each from a text of the environment, or from what a YAML file holds.

Each raises ValueError whose text says what is accepted.
"""

import math
import re
from datetime import timedelta
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import urlsplit

from skyctl.domain.secrets import MAKE_ONE, weakness

HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]+))?")


def text(value: object) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text")
    return value


def secret(value: object) -> str:
    """A text that cannot be guessed."""
    chosen = text(value)
    if weak := weakness(chosen):
        raise ValueError(f"one that cannot be guessed: {weak}; {MAKE_ONE}")
    return chosen


def folder(value: object) -> Path:
    """The path of a folder; `~` is the home."""
    return Path(text(value)).expanduser()


def seconds(value: object) -> timedelta:
    """A length of time in seconds."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 86_400:
        raise ValueError("seconds from 0.1 to 86400")
    return timedelta(seconds=seconds)


def count(value: object) -> int:
    """A whole number from 1."""
    if not re.fullmatch(r"[1-9][0-9]{0,3}", str(value), re.ASCII) or isinstance(value, bool):
        raise ValueError("a whole number from 1 to 9999")
    return int(str(value))


def heartbeats(value: object) -> int:
    """How many of the heartbeats that are kept."""
    if not re.fullmatch(r"[1-9]|10", str(value), re.ASCII) or isinstance(value, bool):
        raise ValueError("a whole number from 1 to 10")
    return int(str(value))


def days(value: object) -> int:
    """A whole number of days; 0 has a meaning of its own."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,3}", str(value), re.ASCII) or isinstance(value, bool):
        raise ValueError("a whole number of days from 0 to 9999")
    return int(str(value))


def percent(value: object) -> float:
    """A percentage over 0."""
    try:
        percent = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 100:
        raise ValueError("a percentage over 0, at most 100")
    return percent


def yes_or_no(value: object) -> bool:
    """A yes or no, in the usual words."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError("true or false")
    return words[str(value).lower()]


def urls(value: object) -> tuple[str, ...]:
    """A list, or a text with white space between the URLs."""
    urls = value.split() if isinstance(value, str) else value
    if not isinstance(urls, list) or not all(
        isinstance(url, str) and re.fullmatch(r"[\w+.-]+://\S+", url) for url in urls
    ):
        raise ValueError("a URL such as slack://..., or several with spaces between them")
    return tuple(dict.fromkeys(urls))


def http_url(value: object) -> str:
    """An address of HTTP, without a slash or /api at its end."""
    url = text(value).rstrip("/").removesuffix("/api")
    try:
        parts = urlsplit(url)
        plain = not (parts.query or parts.fragment or parts.username or parts.port == 0 or re.search(r"\s", url))
        good = plain and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # an address in half a pair of brackets, a port that is none
        good = False
    if not good:
        raise ValueError("a URL that starts with http:// or https://, without user, query and spaces")
    return url


def swarm_address(value: object) -> str:
    """The address of a swarm manager: a host, with or without its port."""
    address = text(value)
    bare = address.count(":") > 1 and not address.startswith("[")
    parts = HOST_AND_PORT.fullmatch(f"[{address}]" if bare else address)
    try:
        good = parts is not None and 0 < int(parts["port"] or 1) < 65_536
        if parts and parts["ipv6"]:
            IPv6Address(parts["ipv6"])
    except ValueError:
        good = False
    if not good:
        raise ValueError("host, host:port, an IPv6 address or [IPv6]:port, without spaces")
    return address
