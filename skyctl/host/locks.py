"""Locks on files, which the kernel drops with their holder: taken at once, or with a word of who holds them."""

import fcntl
import logging
import os
import re
import time
from pathlib import Path
from typing import IO

from skyctl.domain.text import printable

SILENT_SECONDS = 1.0
LOOK_SECONDS = 0.02
LONGEST_COMMAND = 120
HELD = re.compile(r"^\d+: FLOCK +ADVISORY +WRITE (\d+) [0-9a-f]+:[0-9a-f]+:(\d+) ", re.MULTILINE)

log = logging.getLogger(__name__)


def wait_for(file: IO[bytes], path: Path) -> None:
    """Take the lock on a file for us alone, however long others hold it; after a moment that is said."""
    silent_until = time.monotonic() + SILENT_SECONDS
    while not taken(file, fcntl.LOCK_EX):
        if time.monotonic() >= silent_until:
            log.warning("action=waiting_for_lock; %s holds %s", holder(file), path)
            fcntl.flock(file, fcntl.LOCK_EX)
            return
        time.sleep(LOOK_SECONDS)


def taken(file: IO[bytes], kind: int) -> bool:
    """Take the lock, shared or alone, unless somebody is in the way; whether it was."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(file: IO[bytes]) -> str:
    """Who holds the lock for itself alone, as its process and command, in words."""
    inode = str(os.fstat(file.fileno()).st_ino)
    try:
        found = [pid for pid, held in HELD.findall(Path("/proc/locks").read_text("ascii")) if held == inode]
        command = Path(f"/proc/{found[0]}/cmdline").read_text("utf-8", errors="replace") if found else ""
    except OSError:  # it has just ended, or left the lock to a child
        command = ""
    if not found:
        return "another process"
    words = printable(command.replace("\0", " ").strip())[:LONGEST_COMMAND]
    return f"process {found[0]} ({words})" if words else f"process {found[0]}"
