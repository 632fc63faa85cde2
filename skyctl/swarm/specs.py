"""A service and its network as the documents that Docker's API takes.

The policy is the panel's: half of the limits reserved, three attempts, and a change starts the new container first.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineSpec, Port
from skyctl.domain.errors import EngineRefused
from skyctl.domain.states import EndpointMode

_SECOND = 10**9
_CORE = 10**9
MEGABYTE = 2**20
# The engine takes no limit or reservation below these.
_LEAST_CORES, _LEAST_MEMORY = _CORE // 100, 4 * MEGABYTE
_PINNED = re.compile(r"\s*node\.id\s*==\s*(\S+)\s*")

_ONE_NODE = re.compile(r"\s*node\.(hostname|ip)\s*==")

Document = dict[str, Any]


def network(spec: EngineSpec, *, encrypted: bool) -> Document:
    """The network of a service."""
    return {
        "Name": spec.network,
        "Driver": "overlay",
        "Attachable": True,
        "CheckDuplicate": True,
        "Labels": dict(spec.network_labels),
        "Options": {"encrypted": ""} if encrypted else {},
    }


def service(spec: EngineSpec, network_id: str) -> Document:
    """A service of one container, on its network."""
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": {
            "ContainerSpec": _container(spec),
            "Resources": {"Limits": _limits(spec.limits), "Reservations": _reservations(_limits(spec.limits))},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 5 * _SECOND, "MaxAttempts": 3},
            "Placement": {"Constraints": [_pin(spec.node_id)]},
            "Networks": [{"Target": network_id, "Aliases": [spec.alias]}],
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {
            **_one_after_the_other("rollback"),
            "Delay": 10 * _SECOND,
            "Monitor": 15 * _SECOND,
            "MaxFailureRatio": 0.3,
        },
        "RollbackConfig": _one_after_the_other("pause"),
        "EndpointSpec": {
            "Mode": spec.endpoint_mode.value,
            "Ports": [_port(port, spec.endpoint_mode) for port in spec.ports],
        },
    }


def moved(document: Document, node_id: str, labels: Mapping[str, str]) -> Document:
    """The service pinned elsewhere: what its container is stays as it was, so that one which runs there is not
    replaced.

    The swarm is to start the new container first, and to stop where that fails: whoever moves it decides to go back.
    """
    template = document["TaskTemplate"]
    placement = template.get("Placement") or {}
    others = [constraint for constraint in placement.get("Constraints") or [] if not _PINNED.fullmatch(constraint)]
    return {
        **document,
        "Labels": {**(document.get("Labels") or {}), **labels},
        "TaskTemplate": {**template, "Placement": {**placement, "Constraints": [*others, _pin(node_id)]}},
        "UpdateConfig": {**(document.get("UpdateConfig") or {}), **_one_after_the_other("pause")},
    }


def without_container(document: Document) -> Document:
    """The service with no container. Raises EngineRefused where it is none that has a number of them."""
    if "Replicated" not in document["Mode"]:
        raise EngineRefused(f"the service {document['Name']} runs on every node and cannot be stopped, only removed")
    return {**document, "Mode": {"Replicated": {"Replicas": 0}}}


def pinned_to(document: Document) -> str | None:
    """The node on which the service is pinned."""
    constraints = (document["TaskTemplate"].get("Placement") or {}).get("Constraints") or []
    nodes = [match[1] for constraint in constraints if (match := _PINNED.fullmatch(constraint))]
    return nodes[0] if len(nodes) == 1 else None


def bound_by(document: Document) -> list[str]:
    """The constraints, beside the pin, that allow for one node alone: a move could not change them."""
    constraints = (document["TaskTemplate"].get("Placement") or {}).get("Constraints") or []
    return [constraint for constraint in constraints if _ONE_NODE.match(constraint)]


def having(**conditions: object) -> str:
    """A filter of a listing."""
    return json.dumps(conditions)


def _pin(node_id: str) -> str:
    return f"node.id=={node_id}"


def _one_after_the_other(when_it_fails: str) -> Document:
    return {"Parallelism": 1, "Order": "start-first", "FailureAction": when_it_fails}


def _container(spec: EngineSpec) -> Document:
    container: Document = {
        "Image": spec.image,
        "Labels": dict(spec.labels),
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
    }
    if spec.command:
        container["Args"] = list(spec.command)
    return container


def _limits(limits: Capacity) -> dict[str, int]:
    return {"NanoCPUs": round(limits.cpu_cores * _CORE), "MemoryBytes": round(limits.memory_mb * MEGABYTE)}


def _reservations(limits: dict[str, int]) -> dict[str, int]:
    least = {"NanoCPUs": _LEAST_CORES, "MemoryBytes": _LEAST_MEMORY}
    return {name: max(limit // 2, least[name]) if limit else 0 for name, limit in limits.items()}


def _port(port: Port, mode: EndpointMode) -> Document:
    # Only a virtual IP can be published by the whole swarm; without one it is the container's node that publishes.
    return {
        "Protocol": port.protocol,
        "TargetPort": port.target,
        "PublishedPort": port.published,
        "PublishMode": "ingress" if mode is EndpointMode.VIP else "host",
    }
