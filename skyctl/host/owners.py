"""Whose a path is that this user may not use, and how to go on all the same."""

import os
import pwd
from pathlib import Path

from skyctl.domain.text import quoted


def kept_out(path: Path) -> tuple[str, str]:
    """Return what keeps this user from a path and whose it is, in words, and a command that goes on."""
    kept, owner = _barrier(path.absolute())
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:  # a user of another host or container
        name = f"user {owner}"
    if owner == os.geteuid():
        return f"{kept} is yours, and its mode forbids it", f"chmod u+rwX {quoted(kept)}"
    as_owner = "" if owner == 0 or name.startswith("user ") else f", or as that user: sudo -u {name} skyctl ..."
    return f"{kept} belongs to {name}", f"sudo skyctl ...{as_owner}"


def _barrier(path: Path) -> tuple[Path, int]:
    """Return the first on the way to a path that lets this user in no further, and its owner."""
    last, owner = Path(path.anchor), 0
    for part in (*reversed(path.parents), path):
        try:
            status = part.stat()
        except OSError:
            break
        last, owner = part, status.st_uid
        if part.is_dir() and not os.access(part, os.X_OK, effective_ids=True):
            break
    return last, owner
