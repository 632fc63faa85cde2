"""The documents that Docker's API returns, as values of `domain.engine`."""

from collections.abc import Sequence
from datetime import datetime

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineNode, EngineService, EngineTask, Port
from skyctl.domain.states import EndpointMode
from skyctl.swarm import specs
from skyctl.swarm.specs import Document

DEPLOYMENT_LABEL = "skypanel.deployment.id"
_CORE = 10**9


def node(document: Document) -> EngineNode:
    """A node of the swarm. One that is being made a manager, or no longer one, counts as one."""
    description = document["Description"]
    return EngineNode(
        id=document["ID"],
        hostname=description.get("Hostname", ""),
        is_up=document["Status"]["State"] == "ready",
        availability=document["Spec"]["Availability"],
        address=document["Status"].get("Addr", ""),
        is_manager=document["Spec"].get("Role") == "manager" or "ManagerStatus" in document,
        capacity=_capacity(description.get("Resources") or {}),
    )


def task(document: Document) -> EngineTask:
    """A container of a service, or one that is to be."""
    status = document["Status"]
    container = document["Spec"].get("ContainerSpec") or {}
    return EngineTask(
        id=document["ID"],
        node_id=document.get("NodeID"),
        state=status["State"],
        wanted=document["DesiredState"],
        error=status.get("Err", ""),
        container_id=(status.get("ContainerStatus") or {}).get("ContainerID") or None,
        deployment_id=(container.get("Labels") or {}).get(DEPLOYMENT_LABEL, ""),
        created_at=datetime.fromisoformat(document["CreatedAt"]),
    )


def service(document: Document, tasks: Sequence[EngineTask]) -> EngineService:
    """A service, with those of the tasks that are its own."""
    spec = document["Spec"]
    container = spec["TaskTemplate"].get("ContainerSpec") or {}
    update = document.get("UpdateStatus") or {}
    return EngineService(
        id=document["ID"],
        name=spec["Name"],
        version=document["Version"]["Index"],
        image=container.get("Image", ""),
        labels=spec.get("Labels") or {},
        node_id=specs.pinned_to(spec),
        replicas=_replicas(spec["Mode"]),
        endpoint_mode=EndpointMode((spec.get("EndpointSpec") or {}).get("Mode") or "vip"),
        limits=_capacity((spec["TaskTemplate"].get("Resources") or {}).get("Limits") or {}),
        update=update.get("State", ""),
        update_message=update.get("Message", ""),
        bound_by=specs.bound_by(spec),
        local_mounts=[_source(mount) for mount in container.get("Mounts") or [] if _is_local(mount)],
        tasks=sorted(tasks, key=lambda task: (task.created_at, task.id)),
        ports=[_port(port) for port in (document.get("Endpoint") or {}).get("Ports") or []],
        mounts=[f"{_source(mount)}:{mount.get('Target', '')}" for mount in container.get("Mounts") or []],
    )


def _port(port: Document) -> Port:
    return Port(port.get("PublishedPort", 0), port.get("TargetPort", 0), port.get("Protocol", "tcp"))


def _replicas(mode: Document) -> int | None:
    replicated = mode.get("Replicated")
    return None if replicated is None else replicated.get("Replicas", 1)


def _capacity(limits: Document) -> Capacity:
    return Capacity(limits.get("NanoCPUs", 0) / _CORE, limits.get("MemoryBytes", 0) / specs.MEGABYTE)


def _is_local(mount: Document) -> bool:
    """Tell whether a mount keeps its data on its node: a folder, or a volume of no other driver than Docker's own."""
    driver = ((mount.get("VolumeOptions") or {}).get("DriverConfig") or {}).get("Name") or "local"
    return mount.get("Type") == "bind" or (mount.get("Type") == "volume" and driver == "local")


def _source(mount: Document) -> str:
    return str(mount.get("Source") or mount["Target"])
