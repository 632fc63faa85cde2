"""The users of this machine as the kernel vouches for them at a unix socket, and which of them are administrators."""

import grp
import os
import pwd
import socket
import struct

GROUP = "skyctl"
_CREDENTIALS = struct.Struct("iII")  # the kernel's struct ucred: process, user, group


def at_other_end(descriptor: int) -> int:
    """Return the number of the user who made a connection to a unix socket of ours. Raises OSError."""
    with socket.socket(fileno=os.dup(descriptor)) as connected:
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return int(user)


def name_of(user: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def may_administer(user: int) -> bool:
    """Tell whether a user is an administrator: root, the user of this process, a member of the group skyctl.

    By the lists of users and groups as they are now: a connection may be older than what they say.
    """
    if user in (0, os.geteuid()):
        return True
    try:
        account, group = pwd.getpwuid(user), grp.getgrnam(GROUP)
    except KeyError:
        return False
    return group.gr_gid in os.getgrouplist(account.pw_name, account.pw_gid)
