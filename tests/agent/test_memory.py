"""How much memory there is and is used: by real control groups, and stand-ins for what this machine has not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.agent.process import ROOT, agent_environ
from tests.support.helpers import eventually

GIB, MIB = 2**30, 2**20
MEASURE = "from skyagent.memory import memory; print(*memory())"
# A /proc that has what the kernel shows of this process, and what else the test puts there.
PROC = """
set -e
mount --bind /proc "$1/real"
for name in self stat; do ln -s "$1/real/$name" "$1/proc/$name"; done
mount --bind "$1/proc" /proc
shift
exec "$@"
"""
GROUPS = 'set -e; mount --bind "$1/groups" /sys/fs/cgroup; mount --bind "$1/cgroup" /proc/$$/cgroup; shift; exec "$@"'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace of its own")


def measured(*under: str) -> tuple[int, float]:
    command = [*under, sys.executable, "-c", MEASURE]
    done = subprocess.run(command, cwd=ROOT, env=agent_environ(), stdout=subprocess.PIPE, text=True, check=True)
    total, percent = done.stdout.split()
    return int(total), float(percent)


def with_proc(folder: Path, **files: str) -> tuple[int, float]:
    for name in ("real", "proc"):
        (folder / name).mkdir()
    for name, content in files.items():
        path = folder / "proc" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return measured("unshare", "--mount", "sh", "-c", PROC, "sh", str(folder))


def meminfo(total: int, available: int) -> str:
    fields = {"MemTotal": total, "MemFree": available, "MemAvailable": available, "Buffers": 0, "Cached": 0}
    return "".join(f"{name}: {size // 1024} kB\n" for name, size in fields.items())


def arcstats(size: int, least: int) -> str:
    """As OpenZFS writes them; this machine has none."""
    rows = [
        "13 1 0x01 147 39984 4 5",
        "name                            type data",
        f"c_min 4 {least}",
        f"size 4 {size}",
    ]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("size", "least", "percent"),
    [(80 * GIB, 10 * GIB, 27.0), (10 * GIB, 10 * GIB, 97.0), (5 * GIB, 10 * GIB, 97.0), (200 * GIB, 0, 0.0)],
)
def test_what_zfs_can_give_back_is_not_used(tmp_path: Path, size: int, least: int, percent: float) -> None:
    stats = arcstats(size, least)
    assert with_proc(tmp_path, meminfo=meminfo(100 * GIB, 3 * GIB), spl__kstat__zfs__arcstats=stats) == (
        100 * GIB,
        percent,
    )


def test_the_files_of_a_guest_are_what_counts(tmp_path: Path) -> None:
    """As lxcfs mounts them over those of the kernel."""
    (tmp_path / "meminfo").write_text(meminfo(2 * GIB, GIB))
    scene = 'mount --bind "$1" /proc/meminfo && shift && exec "$@"'
    assert measured("unshare", "--mount", "sh", "-c", scene, "sh", str(tmp_path / "meminfo"))[0] == 2 * GIB


@pytest.fixture
def group() -> Iterator[Path]:
    """A real group that may use 512 MiB, with one within that may use less, as the agent's unit does."""
    top = Path("/sys/fs/cgroup/memory")
    limit = "memory.limit_in_bytes" if top.is_dir() else "memory.max"
    group = (top if top.is_dir() else top.parent) / f"skyagent-{os.getpid()}"
    try:
        (group / "unit").mkdir(parents=True)
        if not top.is_dir():
            (group / "cgroup.subtree_control").write_text("+memory")
        (group / limit).write_text(str(512 * MIB))
        (group / "unit" / limit).write_text(str(128 * MIB))
    except OSError as error:
        pytest.skip(f"no group with a limit of memory can be made: {error}")
    yield group
    for folder in (group / "unit", group):
        eventually(partial(_is_removed, folder))


def test_the_limit_of_a_group_above_is_what_there_is(group: Path) -> None:
    enter = 'echo $$ > "$1/unit/cgroup.procs" && shift && exec "$@"'
    total, percent = measured("sh", "-c", enter, "sh", str(group))
    assert total == 512 * MIB
    assert 0 < percent < 50


@pytest.mark.parametrize(
    ("own", "limited", "total"),
    [
        ("/system.slice/unit.service", "", 4 * GIB),
        ("/system.slice/unit.service", "system.slice", 4 * GIB),
        ("/", "", 4 * GIB),
        ("/unit.service", "unit.service", None),
        ("/not/shown/here", "", 4 * GIB),
    ],
)
def test_the_second_version_of_groups_is_read_as_well(
    tmp_path: Path, own: str, limited: str, total: int | None
) -> None:
    """Files such as a guest sees at the top of its own hierarchy; the kernel of the tests may have the first alone."""
    top = tmp_path / "groups"
    for folder in (top, top / "system.slice", top / "unit.service"):
        folder.mkdir()
        (folder / "memory.max").write_text("max\n")
    (top / limited / "memory.max").write_text(f"{4 * GIB}\n")
    (top / limited / "memory.current").write_text(f"{3 * GIB}\n")
    (top / limited / "memory.stat").write_text(f"anon 1\nactive_file {GIB}\ninactive_file {GIB // 2}\n")
    (tmp_path / "cgroup").write_text(f"0::{own}\n")
    found = measured("unshare", "--mount", "sh", "-c", GROUPS, "sh", str(tmp_path))
    assert total is None or found == (total, 37.5)
    assert found[0] == (total or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _is_removed(folder: Path) -> bool:
    """Remove a group, which is possible once the kernel has noted that its processes have ended."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
