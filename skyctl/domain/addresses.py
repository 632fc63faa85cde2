"""The address of a client, as others say it."""

from ipaddress import IPv6Address, ip_address


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
