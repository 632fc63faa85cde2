"""Whether Swarm would put a container of a service on a node, and if not, why: its scheduler's filters (Docker 20.10 to
28), in its order and nearly in its words.

    the node is up, and takes new containers     else it is not available for new tasks
    what the service reserves is free there      as all containers there count, of whichever service, until they have
                                                 ended; of generic resources with names it is the number that counts
    its plugins are there                        for volumes, networks and logs; where an engine names no plugin for
                                                 logs it is not asked
    the constraints hold                         keys in any case, values too; labels' names as they are; a label that
                                                 the node lacks is empty; an unknown key holds nowhere
    the platform is one of its image's           as far as the image says; x86_64 is amd64, aarch64 is arm64
    no container there has one of its ports      that its node publishes, by protocol
    fewer of its containers are there than may   those that are to run

What Swarm asks of volumes of the cluster (CSI) is not looked at.
"""

import ipaddress
from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache

from skyctl.domain.addresses import client_address
from skyctl.domain.engine import (
    MEGABYTE,
    NANO,
    EngineNode,
    EngineService,
    EngineTask,
    HostPort,
    NodeUse,
    Observation,
    Platform,
    Plugin,
    Requirements,
    Reserved,
)

Kind = tuple[tuple[str, ...], tuple[Platform, ...], tuple[Plugin, ...]]

_HOLDING = frozenset({"assigned", "accepted", "preparing", "ready", "starting", "running"})
_TO_RUN = frozenset({"ready", "running", "complete"})
_NODE_LABEL, _ENGINE_LABEL = "node.labels.", "engine.labels."
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def why_not(asks: Requirements, service_id: str, node: EngineNode, use: NodeUse) -> str:
    """Return the first reason for which Swarm puts no container of a service on a node; empty where it does. The
    service's own containers count like any; a service that is to be created has no id yet."""
    return (
        unavailable(node)
        or _short_of(asks.reserved, use)
        or unsuited(asks, node)
        or _taken(asks, use)
        or _too_many(asks, service_id, use)
    )


def unavailable(node: EngineNode) -> str:
    """Return why a node takes no new container of any service; empty where it does."""
    if not node.is_up:
        return "its node is down"
    return "" if node.availability == "active" else "its node takes nothing new"


def unsuited(asks: Requirements, node: EngineNode) -> str:
    """Return why a node would not do for a service, whatever else is there; empty where it would."""
    return (
        next((f"missing plugin: {each.kind.lower()} {each.name}" for each in asks.plugins if not _has(node, each)), "")
        or next(
            (f"scheduling constraints not satisfied: {each}" for each in asks.constraints if not _holds(each, node)), ""
        )
        or _unsupported(asks.platforms, node.platform)
    )


def kind_of(asks: Requirements) -> Kind:
    """Return what `unsuited` looks at, so that services that ask the same of nodes can be told from others."""
    return asks.constraints, asks.platforms, asks.plugins


def no_room(asks: Requirements, service_id: str, use: NodeUse) -> str:
    """Return what of a service's wants is taken on a node that would do for it; empty for nothing."""
    return _short_of(asks.reserved, use) or _taken(asks, use) or _too_many(asks, service_id, use)


def node_uses(observation: Observation, but: str | None = None) -> dict[str, NodeUse]:
    """Return what is left of every node, by its id; as if there were no container of the service `but`."""
    reserved: defaultdict[str, Counter[str]] = defaultdict(Counter)
    generic: defaultdict[str, Counter[str]] = defaultdict(Counter)
    ports: defaultdict[str, set[HostPort]] = defaultdict(set)
    containers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for service in observation.services.values():
        if service.id == but:
            continue
        for task in service.tasks:
            if task.node_id is None or task.state not in _HOLDING:
                continue
            reserved[task.node_id].update(cpus=task.reserved.cpus, memory=task.reserved.memory)
            generic[task.node_id].update(dict(task.reserved.generic))
            ports[task.node_id].update(_published(service, task))
            containers[task.node_id][service.id] += task.wanted in _TO_RUN
    return {
        node.id: NodeUse(
            round(node.capacity.cpu_cores * NANO) - reserved[node.id]["cpus"],
            round(node.capacity.memory_mb * MEGABYTE) - reserved[node.id]["memory"],
            {kind: amount - generic[node.id][kind] for kind, amount in node.generic.items()},
            frozenset(ports[node.id]),
            dict(containers[node.id]),
        )
        for node in observation.nodes.values()
    }


def with_container(use: NodeUse, asks: Requirements, service_id: str) -> NodeUse:
    """Return what is left of a node with one more container of a service."""
    asked = dict(asks.reserved.generic)
    return NodeUse(
        use.cpus - asks.reserved.cpus,
        use.memory - asks.reserved.memory,
        {kind: amount - asked.get(kind, 0) for kind, amount in use.generic.items()} if asked else use.generic,
        use.host_ports.union(asks.host_ports) if asks.host_ports else use.host_ports,
        {**use.containers, service_id: use.containers.get(service_id, 0) + 1},
    )


def unpinned(asks: Requirements) -> Requirements:
    """Return what a service asks beside the pin to a node, which a move takes away."""
    others = tuple(each for each in asks.constraints if not _is_pin(each))
    return asks if others == asks.constraints else replace(asks, constraints=others)


def _published(service: EngineService, task: EngineTask) -> tuple[HostPort, ...]:
    """The ports that a node publishes for a container: those of the service until the container runs."""
    return task.host_ports if task.host_ports or task.state == "running" else service.requirements.host_ports


def _short_of(asked: Reserved, use: NodeUse) -> str:
    has_room = asked.cpus <= use.cpus and asked.memory <= use.memory
    if not asked.generic and (has_room or not (asked.cpus or asked.memory)):
        return ""
    lacking = []
    if asked.cpus > use.cpus:
        lacking.append(f"{asked.cpus / NANO:.10g} CPU cores")
    if asked.memory > use.memory:
        lacking.append(f"{asked.memory / MEGABYTE:.10g} MiB of memory")
    lacking += [f"{amount} {kind}" for kind, amount in asked.generic if use.generic.get(kind, 0) < max(amount, 1)]
    return f"insufficient resources: {' and '.join(lacking)} cannot be reserved" if lacking else ""


def _taken(asks: Requirements, use: NodeUse) -> str:
    taken = [port for port in asks.host_ports if port in use.host_ports]
    return f"host-mode port already in use: {', '.join(map(_port_text, taken))}" if taken else ""


def _too_many(asks: Requirements, service_id: str, use: NodeUse) -> str:
    if not asks.max_replicas or use.containers.get(service_id, 0) < asks.max_replicas:
        return ""
    return f"max replicas per node limit exceeded: {asks.max_replicas}"


def _port_text(port: HostPort) -> str:
    return f"{port.published}" if port.protocol == "tcp" else f"{port.published}/{port.protocol}"


def _has(node: EngineNode, plugin: Plugin) -> bool:
    if plugin in node.plugins or plugin._replace(name=f"{plugin.name}:latest") in node.plugins:
        return True
    named = {each.kind for each in node.plugins}
    return not named or (plugin.kind == "Log" and "Log" not in named)


def _unsupported(platforms: tuple[Platform, ...], of_node: Platform) -> str:
    has = _architecture(of_node.arch)
    if not platforms or any(
        each.os in ("", of_node.os) and _architecture(each.arch) in ("", has) for each in platforms
    ):
        return ""
    return f"unsupported platform: the image is for {', '.join(f'{each.os}/{each.arch}' for each in platforms)}"


def _architecture(name: str) -> str:
    return _ARCHITECTURES.get(name, name)


@lru_cache(maxsize=4096)
def _parsed(constraint: str) -> tuple[str, bool, str]:
    """A constraint's key, whether it asks for equality, and its value."""
    is_equal = "==" in constraint
    key, _, value = constraint.partition("==" if is_equal else "!=")
    return key.strip(), is_equal, value.strip()


def _is_pin(constraint: str) -> bool:
    key, is_equal, _ = _parsed(constraint)
    return is_equal and _same(key, "node.id")


def _holds(constraint: str, node: EngineNode) -> bool:
    key, is_equal, value = _parsed(constraint)
    found = _is_at(node.address, value) if _same(key, "node.ip") else _is_said(node, key, value)
    return found is is_equal


def _is_said(node: EngineNode, key: str, value: str) -> bool | None:
    """Tell whether a node is what a key and a value say; None where there is no such key."""
    folded = key.casefold()
    if folded.startswith(_NODE_LABEL) and folded != _NODE_LABEL:
        return _same(node.labels.get(key[len(_NODE_LABEL) :], ""), value)
    if folded.startswith(_ENGINE_LABEL) and folded != _ENGINE_LABEL:
        return _same(node.engine_labels.get(key[len(_ENGINE_LABEL) :], ""), value)
    said = {
        "node.id": node.id,
        "node.hostname": node.hostname,
        "node.role": "manager" if node.is_manager else "worker",
        "node.platform.os": node.platform.os,
        "node.platform.arch": node.platform.arch,
    }
    return _same(said[folded], value) if folded in said else None


def _same(one: str, other: str) -> bool:
    """Tell whether two texts differ in case alone. Where that changes their length, Swarm has them differ."""
    return len(one) == len(other) and one.casefold() == other.casefold()


def _is_at(address: str, value: str) -> bool | None:
    """Tell whether an address is this one, or of this subnet; None where the value is neither."""
    seen = _address(address)
    if "/" not in value:
        wanted = _address(value)
        return None if wanted is None else seen == wanted
    try:
        if not value.partition("/")[2].isdecimal():
            return None
        return seen is not None and seen in ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    known = client_address(text)
    return None if known is None else ipaddress.ip_address(known)
