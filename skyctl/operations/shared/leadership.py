"""Stories of the monitors among themselves: one leads for a term, the others stand by."""

from collections.abc import Callable
from datetime import timedelta

from skyctl.domain.cluster import Lease
from skyctl.operations.shared.context import Context
from skyctl.store import leases

TTL = timedelta(seconds=15)


def lead(context: Context, holder: str, has_ended: Callable[[str], bool]) -> Lease | None:
    """Begin a term where nobody leads, or oneself, or one who is known to `has_ended`; None where another one leads."""
    with context.db.transaction() as tx:
        leader = leases.holder(tx)
        yields = leader is not None and (leader == holder or has_ended(leader))
        return leases.take(tx, holder, TTL, leader if yields else None)


def renew(context: Context, lease: Lease) -> None:
    """Go on leading. Raises LostLead."""
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)


def release(context: Context, lease: Lease) -> None:
    """Let another one lead at once."""
    with context.db.transaction() as tx:
        leases.release(tx, lease)
