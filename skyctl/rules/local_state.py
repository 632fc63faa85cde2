"""What a service keeps on its node, and how it may therefore be moved.

Of what a container mounts, by the service's own words:

    a volume of Docker's own, with or without a name           keeps data on its node
    one that its image declares, as agents tell                keeps data there
    one that is a network's file system (`type=nfs`, `addr=`)  is shared by all nodes
    a volume of another driver, or of the cluster              is shared
    a folder or a file of the node                             keeps data there
    such a one that is only read, of the kernel, or of /run    keeps nothing
    tmpfs, pipes, images                                       keep nothing

A folder that is only read has to be on the other node too: where it is not, Swarm refuses the container, and nothing is
lost. What a volume was made of before the service was, and a folder that is on a shared file system, no service says:
its owner does, by the label.

A volume that an image declares is in no service. The engine makes one for each container, so what is in it is no older
than the container: where an agent has not told of it yet, what would be lost is as old as its last look at most. See
ADR 0096.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import PurePosixPath
from typing import NamedTuple

from skyctl.domain.cluster import ImageVolumes
from skyctl.domain.engine import EngineService, Mount
from skyctl.domain.text import listed
from skyctl.rules.tasks import ENDED

MOVE_LABEL = "skyctl.move"
NEVER = "never"
_OWN_DRIVERS = ("", "local")
_NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p")
# What is there is the kernel's or gone with the next boot: sockets, devices, the engine's own.
_NO_STORAGE = tuple(PurePosixPath(path) for path in ("/dev", "/proc", "/run", "/sys", "/var/run"))


class Way(StrEnum):
    """How a container is moved: the new one first, the old one first, or not at all."""

    START_FIRST = "start-first"
    STOP_FIRST = "stop-first"
    STAYS = "stays"


class Moving(NamedTuple):
    """The way of moving a service, and why."""

    way: Way
    reason: str


def with_image_volumes(service: EngineService, by_node: Mapping[str, ImageVolumes]) -> EngineService:
    """Return a service with what its image declares among its mounts, as told of the nodes where it has containers that
    have not ended. A path that the service itself says is left to that: the agents see a volume there, too."""
    told: dict[PurePosixPath, set[str]] = {}
    for node_id in {service.node_id, *(task.node_id for task in service.tasks if task.state not in ENDED)} - {None}:
        for path in by_node.get(node_id or "", {}).get(service.id, ()):
            told.setdefault(PurePosixPath(path), set()).add(node_id or "")
    undeclared = told.keys() - {PurePosixPath(mount.target) for mount in service.mounts}
    more = [Mount("volume", "", str(path), of_image_on=frozenset(told[path])) for path in sorted(undeclared)]
    return replace(service, mounts=(*service.mounts, *more)) if more else service


def leaving(service: EngineService, node_id: str | None) -> EngineService:
    """Return a service as it leaves a node: of what its image declares, what is told of this node. No host holds back
    what leaves another one."""
    mounts = [mount for mount in service.mounts if not mount.of_image or node_id in mount.of_image_on]
    return replace(service, mounts=mounts) if len(mounts) < len(service.mounts) else service


def kept(service: EngineService) -> list[Mount]:
    """What a service mounts that keeps data on its node, and does not move with it."""
    return [mount for mount in service.mounts if _keeps_data(mount)]


def shared(service: EngineService) -> list[Mount]:
    """What a service mounts that its containers may write to on every node alike."""
    return [mount for mount in service.mounts if _is_shared(mount) and not _is_read_only(mount)]


def moving(service: EngineService, *, moves_local_data: bool = False) -> Moving:
    """The way of moving a service to another node; read from the top, the first that fits decides.

    its label says how, or that it never moves         so
    its label says something else                      it stays
    it keeps data on its node                          it stays, unless they may be left behind (`moves_local_data`)
    both containers would write to one place           stop-first
    else                                               start-first
    """
    local, leaving = _places(service), left_behind(service)
    leaving = f"; {leaving}" if leaving else ""
    if (label := service.labels.get(MOVE_LABEL)) is not None:
        return _as_labelled(label.strip(), leaving)
    if local and not moves_local_data:
        return Moving(Way.STAYS, f"it keeps data on its node: {local}")
    if places := ", ".join(mount.place for mount in shared(service)):
        return Moving(Way.STOP_FIRST, f"two containers would write to {places}{leaving}")
    return Moving(Way.START_FIRST, f"two containers run for some seconds{leaving}")


def left_behind(service: EngineService) -> str:
    """Return what a service would leave on its node; empty for nothing."""
    local = _places(service)
    return f"what it keeps on its node stays behind: {local}" if local else ""


def _places(service: EngineService) -> str:
    return listed([mount.place for mount in kept(service)])


def _as_labelled(label: str, leaving: str) -> Moving:
    said = f"its label {MOVE_LABEL} says {label}"
    if label == NEVER:
        return Moving(Way.STAYS, said)
    if label in (Way.START_FIRST, Way.STOP_FIRST):
        return Moving(Way(label), said + leaving)
    return Moving(Way.STAYS, f"its label {MOVE_LABEL} is {label!r}, not {Way.START_FIRST}, {Way.STOP_FIRST} or {NEVER}")


def _keeps_data(mount: Mount) -> bool:
    if mount.type == "bind":
        source = PurePosixPath(mount.source)
        return not mount.read_only and not any(source.is_relative_to(path) for path in _NO_STORAGE)
    is_in_memory = mount.options.get("type") == "tmpfs"
    return mount.type == "volume" and not _is_shared(mount) and not is_in_memory


def _is_shared(mount: Mount) -> bool:
    """Tell whether every node has the same of a mount."""
    if mount.type != "volume":
        return mount.type == "cluster"
    is_elsewhere = any(option.startswith("addr=") for option in _mount_options(mount))
    return mount.driver not in _OWN_DRIVERS or mount.options.get("type") in _NETWORK_FILE_SYSTEMS or is_elsewhere


def _is_read_only(mount: Mount) -> bool:
    return mount.read_only or "ro" in _mount_options(mount)


def _mount_options(mount: Mount) -> list[str]:
    return mount.options.get("o", "").split(",")
