"""Control groups that carry a machine's name, of the older and of the unified kind."""

import errno
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def make(name: str) -> list[Path]:
    """One group of this name in every hierarchy; a process joins by writing its id to `cgroup.procs` of each."""
    return [_make(hierarchy, name) for hierarchy in _hierarchies()]


def processes(name: str) -> set[int]:
    """The ids of all processes in the groups of this name and below."""
    groups = [group for hierarchy in _hierarchies() for group, _, _ in os.walk(hierarchy / name)]
    return {int(pid) for group in groups for pid in _read(Path(group, "cgroup.procs")).split()}


def remove(name: str) -> None:
    """Remove the groups of this name with all below them; their processes have ended."""
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            Path(folder).rmdir()


def _hierarchies() -> list[Path]:
    if (_ROOT / "cgroup.procs").exists():
        return [_ROOT]
    return [mount for mount in _ROOT.iterdir() if not mount.is_symlink()]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return ""  # its engine has removed this group meanwhile: it was empty


def _make(hierarchy: Path, name: str) -> Path:
    group = hierarchy / name
    group.mkdir()
    for setting in ("cpuset.cpus", "cpuset.mems"):  # a group without processors and memory takes no process
        if (hierarchy / setting).exists():
            (group / setting).write_text((hierarchy / setting).read_text())
    return group
