"""The documents that Docker's API returns, as values of `domain.engine`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import (
    MEGABYTE,
    NANO,
    EngineNode,
    EngineService,
    EngineTask,
    HostPort,
    Mount,
    Platform,
    Plugin,
    Port,
    Requirements,
    Reserved,
    RestartPolicy,
)
from skyctl.domain.states import EndpointMode, ServiceMode
from skyctl.swarm import specs
from skyctl.swarm.specs import Document

_ENDED_BY_ITSELF = ("complete", "failed")
_MODES = {
    "Replicated": ServiceMode.REPLICATED,
    "Global": ServiceMode.GLOBAL,
    "ReplicatedJob": ServiceMode.REPLICATED_JOB,
    "GlobalJob": ServiceMode.GLOBAL_JOB,
}
_LOCAL = ("", "local")  # Docker's own volumes
_UNNAMED_LOGS = ("", "none")  # they ask for no plugin


def node(document: Document) -> EngineNode:
    """A node of the swarm. One that is being made a manager, or no longer one, counts as one."""
    description = document["Description"]
    engine, platform = description.get("Engine") or {}, description.get("Platform") or {}
    resources = description.get("Resources") or {}
    return EngineNode(
        id=document["ID"],
        hostname=description.get("Hostname", ""),
        is_up=document["Status"]["State"] == "ready",
        availability=document["Spec"]["Availability"],
        address=document["Status"].get("Addr", ""),
        is_manager=document["Spec"].get("Role") == "manager" or "ManagerStatus" in document,
        capacity=_capacity(resources),
        labels=document["Spec"].get("Labels") or {},
        engine_labels=engine.get("Labels") or {},
        platform=_platform(platform),
        plugins=frozenset(Plugin(each["Type"], each["Name"]) for each in engine.get("Plugins") or []),
        generic=_generic(resources.get("GenericResources")),
    )


def networks_differ(nodes: Iterable[EngineNode]) -> bool:
    """Tell whether some nodes have plugins for networks that others lack."""
    return len({frozenset(plugin for plugin in node.plugins if plugin.kind == "Network") for node in nodes}) > 1


def lean_task(document: Document) -> Document | tuple[str, EngineTask]:
    """A document within an answer about tasks: a task with its service's id is read at once, and of what a container is
    only what `task` reads is kept; that is most of it, and each task has it anew."""
    container = document.get("ContainerSpec")
    if isinstance(container, dict):  # a label may be called so, too
        return {"ContainerSpec": {"Labels": container.get("Labels")}, "Resources": document.get("Resources")}
    if "ServiceID" in document and isinstance(document.get("Status"), dict):
        return document["ServiceID"], task(document)
    return document


def lean_service(document: Document) -> Document:
    """A document within an answer about services, without what `service` does not read and may be long."""
    for name in ("PreviousSpec", "Env"):
        if not isinstance(document.get(name), str):  # a label may be called so, too
            document.pop(name, None)
    return document


def task(document: Document) -> EngineTask:
    """A container of a service, or one that is to be."""
    status = document["Status"]
    container, ran = document["Spec"].get("ContainerSpec") or {}, status.get("ContainerStatus") or {}
    reserved = _reserved(document["Spec"])
    given = _generic(document.get("GenericResources"))
    published = (status.get("PortStatus") or {}).get("Ports")
    return EngineTask(
        id=document["ID"],
        node_id=document.get("NodeID"),
        state=status["State"],
        wanted=document["DesiredState"],
        error=status.get("Err", ""),
        container_id=ran.get("ContainerID") or None,
        deployment_id=(container.get("Labels") or {}).get(specs.DEPLOYMENT_LABEL, ""),
        created_at=datetime.fromisoformat(document["CreatedAt"]),
        reserved=reserved._replace(generic=tuple(given.items())),
        host_ports=_host_ports(published),
        exit_code=ran.get("ExitCode", 0) if ran and status["State"] in _ENDED_BY_ITSELF else None,
    )


def service(
    document: Document, tasks: Sequence[EngineTask], network_drivers: Mapping[str, str] | None = None
) -> EngineService:
    """A service, with those of the tasks that are its own; the drivers of networks by their ids, where they matter."""
    spec = document["Spec"]
    container = spec["TaskTemplate"].get("ContainerSpec") or {}
    update = document.get("UpdateStatus") or {}
    mounts = [_mount(mount) for mount in container.get("Mounts") or []]
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
        tasks=sorted(tasks, key=lambda task: (task.created_at, task.id)),
        ports=[_port(port) for port in (document.get("Endpoint") or {}).get("Ports") or []],
        mounts=mounts,
        mode=next((mode for name, mode in _MODES.items() if name in spec["Mode"]), ServiceMode.REPLICATED),
        requirements=_requirements(document, mounts, network_drivers or {}),
        restarts=_restarts(spec["TaskTemplate"].get("RestartPolicy") or {}),
    )


def _requirements(document: Document, mounts: Iterable[Mount], network_drivers: Mapping[str, str]) -> Requirements:
    template = document["Spec"]["TaskTemplate"]
    placement = template.get("Placement") or {}
    volumes = [mount.driver for mount in mounts if mount.type == "volume" and mount.driver not in _LOCAL]
    networks = [network_drivers.get(each.get("Target", ""), "") for each in template.get("Networks") or []]
    log = (template.get("LogDriver") or {}).get("Name", "")
    return Requirements(
        constraints=tuple(placement.get("Constraints") or ()),
        platforms=tuple(_platform(each) for each in placement.get("Platforms") or ()),
        plugins=(
            *(Plugin("Volume", name) for name in volumes),
            *(Plugin("Network", name) for name in networks if name),
            *([] if log in _UNNAMED_LOGS else [Plugin("Log", log)]),
        ),
        reserved=_reserved(template),
        host_ports=_host_ports((document.get("Endpoint") or {}).get("Ports")),
        max_replicas=placement.get("MaxReplicas", 0),
    )


def _reserved(template: Document) -> Reserved:
    reservations = (template.get("Resources") or {}).get("Reservations") or {}
    asked = _generic(reservations.get("GenericResources"))
    return Reserved(reservations.get("NanoCPUs", 0), reservations.get("MemoryBytes", 0), tuple(asked.items()))


def _generic(resources: Sequence[Document] | None) -> dict[str, int]:
    """Generic resources by their kind: how many, whether they have names or are counted."""
    amounts: Counter[str] = Counter()
    for each in resources or ():
        if counted := each.get("DiscreteResourceSpec"):
            amounts[counted["Kind"]] += counted.get("Value", 0)
        elif named := each.get("NamedResourceSpec"):
            amounts[named["Kind"]] += 1
    return dict(amounts)


def _host_ports(ports: Sequence[Document] | None) -> tuple[HostPort, ...]:
    published = [
        HostPort(port["PublishedPort"], port.get("Protocol", "tcp"))
        for port in ports or ()
        if port.get("PublishMode") == "host" and port.get("PublishedPort")
    ]
    return tuple(dict.fromkeys(published))


def _platform(platform: Document) -> Platform:
    return Platform(platform.get("OS", ""), platform.get("Architecture", ""))


def _mount(mount: Document) -> Mount:
    volume = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
    return Mount(
        mount.get("Type", ""),
        mount.get("Source") or "",
        mount.get("Target", ""),
        mount.get("ReadOnly", False),
        volume.get("Name") or "",
        volume.get("Options") or {},
    )


def _restarts(policy: Document) -> RestartPolicy:
    window_seconds = (policy.get("Window") or 0) / NANO
    return RestartPolicy(policy.get("Condition") or "any", policy.get("MaxAttempts") or 0, window_seconds)


def _port(port: Document) -> Port:
    return Port(port.get("PublishedPort", 0), port.get("TargetPort", 0), port.get("Protocol", "tcp"))


def _replicas(mode: Document) -> int | None:
    replicated = mode.get("Replicated")
    return None if replicated is None else replicated.get("Replicas", 1)


def _capacity(limits: Document) -> Capacity:
    return Capacity(limits.get("NanoCPUs", 0) / NANO, limits.get("MemoryBytes", 0) / MEGABYTE)
