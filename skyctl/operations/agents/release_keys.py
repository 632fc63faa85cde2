"""The key of releases: an administrator's commands sign by it, and hosts pin its public half.

The database says which one that is, but is not believed: whoever holds it, or `serve`, must not choose the key of hosts
that an administrator's own script makes.
"""

from skyctl.domain.errors import Refused, ValidationError
from skyctl.host.release_key import ReleaseKey
from skyctl.operations.shared.context import Context
from skyctl.store import release_keys


def signing(context: Context) -> ReleaseKey:
    """Return the key that signs here, published; it is made where the installation has none.

    Raises Refused where it is on another machine, or another user's.
    """
    key = context.release_key
    if key is None:
        raise Refused("the key of releases is not for this process", "call skyctl workers upgrade")
    with context.db.transaction() as tx:
        published = release_keys.published(tx)
    if not key.is_here:
        if published:
            raise Refused(
                f"there is no {key.path} that this user may read, the key of releases that hosts pin",
                "call this on the machine and as the user who has it, or copy it here",
            )
        key.make()
    public = key.public()
    if published != public:
        with context.db.transaction() as tx:
            release_keys.publish(tx, public)
    return key


def to_pin(context: Context) -> str:
    """Return the public key that scripts of this process pin, in Base64; empty where it knows none.

    A process of administrators knows its own key alone; one that has none by design, `serve`, the published one.
    """
    if context.release_key is None:
        with context.db.transaction() as tx:
            return release_keys.published(tx) or ""
    try:
        return signing(context).public()
    except (Refused, ValidationError):  # elsewhere, or nowhere that this user may write
        return ""
