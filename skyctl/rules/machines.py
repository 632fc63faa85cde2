"""Whether a host that registers with a worker's token is that worker's host.

    the token is not bound to a machine yet, or no machine is named     the same
    another machine than the one that it is bound to                    another machine
    the same machine in the same boot                                   the same
    another boot, and the worker is silent for two heartbeats           the same: it was rebooted
    another boot, and the worker has beaten since this boot first came  a clone: two hosts live with one machine id
    another boot else                                                   uncertain until one of these two holds

An agent beats only once it is registered, so that each beat meanwhile is the other host's.
"""

from datetime import datetime, timedelta

from skyctl.rules.tokens import same
from skyctl.trust import Credentials, Identity, Rival, Sighting, Standing

SILENT_BEATS = 2


def standing(known: Credentials, token_hash: str) -> Standing:
    """What a token that we signed for a worker is to it now."""
    if known.next_token and same(known.next_token.token_hash, token_hash):
        return Standing.NEXT
    if known.invitation_hash and same(known.invitation_hash, token_hash):
        return Standing.INVITATION
    return Standing.CURRENT if same(known.token_hash, token_hash) else Standing.STALE


def identify(known: Credentials, host: Sighting, silence: timedelta | None, interval: timedelta) -> Identity:
    """What comes of the host. `silence`: for how long a heartbeat of the worker would have been heard, None where none ever was."""
    holder = known.holder
    if not (holder.machine_id and host.machine_id):
        return Identity.SAME
    if holder.machine_id != host.machine_id:
        return Identity.OTHER_MACHINE
    if not (holder.boot_id and host.boot_id) or holder.boot_id == host.boot_id:
        return Identity.SAME
    rival = known.rival if known.rival and known.rival.boot_id == host.boot_id else None
    if rival and (rival.is_told or (known.last_heartbeat_at and known.last_heartbeat_at > rival.since)):
        return Identity.CLONE
    if silence is None or silence >= SILENT_BEATS * interval:
        return Identity.SAME
    return Identity.UNCERTAIN


def rival_of(known: Credentials, host: Sighting, verdict: Identity, now: datetime) -> Rival | None:
    """The rival to remember after the verdict; None where there is none any more."""
    if verdict is Identity.SAME:
        return None
    if verdict is Identity.OTHER_MACHINE or (
        known.rival and known.rival.boot_id == host.boot_id and known.rival.is_told
    ):
        return known.rival
    since = known.rival.since if known.rival and known.rival.boot_id == host.boot_id else now
    return Rival(host.boot_id, since, is_told=verdict is Identity.CLONE)
