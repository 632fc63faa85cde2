"""The addresses at which a swarm's managers are reached."""

_PORT = 2377


def with_port(address: str) -> str:
    """`host:port` of a swarm manager: the swarm's port where none is given, IPv6 addresses in brackets."""
    if address.count(":") > 1 and not address.startswith("["):
        return f"[{address}]:{_PORT}"
    host, colon, port = address.rpartition(":")
    return address if colon and port.isdigit() and host else f"{address}:{_PORT}"
