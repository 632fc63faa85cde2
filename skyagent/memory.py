"""How much memory this host has and uses: the kernel's figures, what ZFS gives back, what the groups above allow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil

ARC = Path("/proc/spl/kstat/zfs/arcstats")
GROUPS = Path("/sys/fs/cgroup")
STATISTICS = "memory.stat"


class Memory(NamedTuple):
    """The memory that there is, in bytes, and the percentage of it that is used and cannot be given back."""

    total: int
    percent: float


class Group(NamedTuple):
    """The files of a control group, and the parts of `statistics` that can be given back."""

    limit: Path
    usage: Path
    statistics: Path
    reclaimable: tuple[str, ...]


class GroupFiles(NamedTuple):
    """What a version of control groups calls its files, and the parts of `memory.stat` that can be given back."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]


FIRST = GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
SECOND = GroupFiles("memory.max", "memory.current", ("active_file", "inactive_file", "slab_reclaimable"))


def memory() -> Memory:
    """This host's memory: that of the tightest limit where one is less than the machine has, else the machine's.

    What is used is the worst of all. Raises OSError, ValueError or psutil.Error.
    """
    machine = psutil.virtual_memory()
    available = min(machine.total, machine.available + _arc_to_give_back())
    found = [Memory(machine.total, _percent(machine.total - available, machine.total)), *_limits(machine.total)]
    return Memory(min(each.total for each in found), max(each.percent for each in found))


def _percent(used: int, total: int) -> float:
    return round(100.0 * min(used, total) / total, 1)


def _arc_to_give_back() -> int:
    """What ZFS's cache (ARC) holds beyond its least size: Linux counts it as used; 0 without ZFS."""
    try:
        sizes = _numbers(ARC.read_text("ascii"))
    except FileNotFoundError:
        return 0
    return max(0, sizes.get("size", 0) - sizes.get("c_min", 0))


def _limits(total: int) -> Iterator[Memory]:
    """The limits below `total` of the groups above this process's own: its own is its unit's, and binds nobody else.

    Where its own is all that it sees, as in a container, that is the host.
    """
    for group in _groups():
        limit = _limit(group.limit)
        if limit and limit < total:
            yield Memory(limit, _percent(_used(group), limit))


def _limit(path: Path) -> int:
    """The bytes that a group may use; 0 without a limit, as at the top of all."""
    try:
        said = path.read_text("ascii").strip()
    except FileNotFoundError:
        return 0
    return int(said) if said.isdecimal() else 0


@lru_cache(maxsize=1)
def _groups() -> tuple[Group, ...]:
    """The groups above this process's own, of those that limit memory. They stay the same while it runs."""
    groups = []
    for line in Path("/proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines():
        number, controllers, path = line.split(":", 2)
        own = PurePosixPath(path)
        is_first = "memory" in controllers.split(",")
        if is_first or number == "0":
            top, files = (GROUPS / "memory", FIRST) if is_first else (GROUPS, SECOND)
            folders = [top / group.relative_to("/") for group in own.parents or [own]]
            groups += [Group(at / files.limit, at / files.usage, at / STATISTICS, files.reclaimable) for at in folders]
    return tuple(groups)


def _used(group: Group) -> int:
    """The bytes that a group uses, without what is cached of files."""
    parts = _numbers(group.statistics.read_text("ascii"))
    cached = sum(parts.get(name, 0) for name in group.reclaimable)
    return max(0, int(group.usage.read_text("ascii")) - cached)


def _numbers(table: str) -> dict[str, int]:
    """The first word of each line with the number at its end."""
    words = [line.split() for line in table.splitlines()]
    return {line[0]: int(line[-1]) for line in words if len(line) > 1 and line[-1].isdecimal()}
