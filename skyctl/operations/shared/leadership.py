"""Stories of the monitors among themselves: one leads for a term, the others stand by."""

from collections.abc import Callable
from datetime import timedelta

from skyctl.domain.cluster import Lease
from skyctl.operations.shared.context import World
from skyctl.store import leases

TTL = timedelta(seconds=15)


def lead(world: World, holder: str, has_ended: Callable[[str], bool]) -> Lease | None:
    """Begin a term where nobody leads, or oneself, or one who is known to `has_ended`; None where another one leads."""
    with world.db.transaction() as tx:
        leader = leases.holder(tx)
        yields = leader is not None and (leader == holder or has_ended(leader))
        return leases.take(tx, holder, TTL, leader if yields else None)


def renew(world: World, lease: Lease) -> None:
    """Go on leading. Raises LostLead."""
    with world.db.transaction() as tx:
        leases.hold(tx, lease, TTL)


def release(world: World, lease: Lease) -> None:
    """Let another one lead at once."""
    with world.db.transaction() as tx:
        leases.release(tx, lease)
