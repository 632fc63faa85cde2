"""Judge whether a host that registers with a worker's token is that worker's host.

    the token is not bound to a machine yet                             the same
    another machine than the one that it is bound to, or none named     another machine
    the process that registered last, or one in the same place          the same
    another one, and the worker is silent for two heartbeats            the same: it was rebooted
    another one, and the worker has beaten since this one first came    a clone: two hosts live with one machine id
    another one else                                                    uncertain until one of these two holds

A place is a boot, a hostname and an address: an agent that is started again stays there. An agent beats only once it is
registered, so that each heartbeat meanwhile is the other host's.
"""

from datetime import datetime, timedelta

from skyctl.domain.tokens import Claimant, Credentials, HostIdentity, Identity, TokenState
from skyctl.rules.tokens import same

SILENT_HEARTBEATS = 2
MOST_CLAIMANTS = 16


def token_state(known: Credentials, token_hash: str) -> TokenState:
    """Determine the present relation to its worker of a token that we signed."""
    if known.next_token and same(known.next_token.token_hash, token_hash):
        return TokenState.NEXT
    if known.invitation_hash and same(known.invitation_hash, token_hash):
        return TokenState.INVITATION
    return TokenState.CURRENT if same(known.token_hash, token_hash) else TokenState.STALE


def identify(known: Credentials, host: HostIdentity, silence: timedelta | None, interval: timedelta) -> Identity:
    """Judge a host that wants to register. `silence`: for how long a heartbeat of the worker would have been heard,
    None where none ever was."""
    holder = known.holder
    if not holder.machine_id:
        return Identity.SAME
    if holder.machine_id != host.machine_id:
        return Identity.OTHER_MACHINE
    if is_at_home(holder, host):
        return Identity.SAME
    claimant = known.claimants.get(host.place)
    if claimant and (claimant.is_told or (known.last_heartbeat_at and known.last_heartbeat_at > claimant.since)):
        return Identity.CLONE
    if silence is None or silence >= SILENT_HEARTBEATS * interval:
        return Identity.SAME
    return Identity.UNCERTAIN


def is_at_home(holder: HostIdentity, host: HostIdentity) -> bool:
    """Tell whether a host is where the worker's machine was last seen, or its very process moved."""
    return holder.place == host.place or bool(holder.instance_id and holder.instance_id == host.instance_id)


def claimants_with(known: Credentials, host: HostIdentity, verdict: Identity, now: datetime) -> dict[str, Claimant]:
    """The claimants to remember, by their place, with a host that is uncertain, or a copy. Where there are too many,
    the oldest is forgotten, one that was not told first."""
    before = known.claimants.get(host.place)
    this = Claimant(before.since if before else now, is_told=verdict is Identity.CLONE)
    others = {place: claimant for place, claimant in known.claimants.items() if place != host.place}
    if len(others) >= MOST_CLAIMANTS:
        del others[min(others, key=lambda place: (others[place].is_told, others[place].since))]
    return {**others, host.place: this}
