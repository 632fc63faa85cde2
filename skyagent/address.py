"""The address of this host, as the way to its manager shows it."""

from __future__ import annotations

import socket
from ipaddress import ip_address

# Addresses of documentation (RFC 5737, RFC 3849): a datagram socket that is bound to the route there sends nothing.
ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def towards(host: str, port: int, timeout_seconds: float) -> str:
    """The local address of a connection to `host`, which is closed at once: of the first of its addresses that answers.

    Raises OSError.
    """
    with socket.create_connection((host, port), timeout_seconds) as connection:
        return str(connection.getsockname()[0])


def reachable(local: str) -> str:
    """`local` as others may use it: the address of the default route in place of loopback, if there is such a route.

    A manager or proxy on this very machine is often reached through loopback though its name is this host's, as where
    /etc/hosts says 127.0.1.1 for it.
    """
    address = local.partition("%")[0]
    return (_of_default_route() or address) if ip_address(address).is_loopback else address


def _of_default_route() -> str:
    """The address by which packets leave to elsewhere; empty without such a route."""
    return next(filter(None, (_of_route(family, peer) for family, peer in ELSEWHERE)), "")


def _of_route(family: int, peer: str) -> str:
    """The address by which packets leave to `peer`; empty without such a route, or such a family."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
