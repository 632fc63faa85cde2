"""What the embedded PostgreSQL takes of the machine: settings by memory and disk, see ADR 0101."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

MIB = 1 << 20
GIB = 1 << 30
GROUPS = Path("/sys/fs/cgroup")
NAME = re.compile(r"^\s*(\w+)\s*=", re.MULTILINE)


def settings(memory: int, free: int) -> Mapping[str, str]:
    """The settings for this much memory and free disk, in bytes: a guest's part of either, and never all of it."""
    most_wal = _between(256 * MIB, free // 20, 4 * GIB)  # what a killed server reads again before it answers
    return {
        # every worker's row is written twice a minute, and is to stay here; each GB takes a start 0.1 s
        "shared_buffers": _megabytes(_between(128 * MIB, memory // 8, GIB)),
        # what the planner may take for cached, by us and by the kernel; nothing is taken
        "effective_cache_size": _megabytes(max(128 * MIB, memory // 2)),
        # after a checkpoint the first write of a page logs all of it, so that few checkpoints are little to write
        "checkpoint_timeout": "15min",
        "max_wal_size": _megabytes(most_wal),
        "min_wal_size": _megabytes(most_wal // 8),
        # pages that are logged whole are small then; pglz is the one method of this build
        "wal_compression": "on",
    }


def chosen_by_owner(configuration: str) -> set[str]:
    """The names that `ALTER SYSTEM` has set, by the text of postgresql.auto.conf: these stay as they are."""
    return set(NAME.findall(configuration))


def memory(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """The bytes of memory that this process may have: the machine's, or what its control groups allow."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(groups, own)])


def _limits(groups: Path, own: Path) -> list[int]:
    found = []
    for line in own.read_text("utf-8", "surrogateescape").splitlines():
        number, controllers, path = line.split(":", 2)
        is_first = "memory" in controllers.split(",")
        if not (is_first or number == "0"):
            continue
        top, name = (groups / "memory", "memory.limit_in_bytes") if is_first else (groups, "memory.max")
        group = PurePosixPath(path)
        for each in (group, *group.parents):
            file = top / each.relative_to("/") / name
            said = file.read_text("ascii").strip() if file.exists() else ""
            found += [int(said)] if said.isdecimal() else []  # else it is "max"
    return found


def free(folder: Path) -> int:
    """The bytes that its file system still takes. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _between(least: int, wanted: int, most: int) -> int:
    return max(least, min(wanted, most))


def _megabytes(size: int) -> str:
    return f"{size // MIB}MB"
