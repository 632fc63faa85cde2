"""A service and its network as the documents that Docker's API takes.

The policy is the panel's: half of the limits reserved, and a change starts the new container first; where its node
publishes a port of it, the old one is stopped first. What is to run is started again whenever and however often it
ends.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import MEGABYTE, NANO, EngineSpec, Port, reserved_for, stops_first
from skyctl.domain.errors import EngineRefused
from skyctl.domain.states import EndpointMode

DEPLOYMENT_LABEL = "skypanel.deployment.id"
_SECOND = 10**9
# The engine takes keys in any case.
_PINNED = re.compile(r"\s*node\.id\s*==\s*(\S+)\s*", re.IGNORECASE)
_ONE_NODE = re.compile(r"\s*node\.(hostname|ip)\s*==", re.IGNORECASE)

_START_FIRST = "start-first"

Document = dict[str, Any]

# Without a number of attempts: the swarm counts over a service's whole life, also restarts of engines and lost nodes.
RESTART: Document = {"Condition": "any", "Delay": 5 * _SECOND, "MaxAttempts": 0}


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
    """A service on its network: of one container, or of several that the swarm places."""
    order = "stop-first" if stops_first(spec.ports, spec.endpoint_mode) else _START_FIRST
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": {
            "ContainerSpec": _container(spec),
            "Resources": {"Limits": _limits(spec.limits), "Reservations": _reservations(spec.limits)},
            "RestartPolicy": RESTART,
            "Placement": {"Constraints": [_pin(spec.node_id)]} if spec.node_id else {},
            "Networks": [{"Target": network_id, "Aliases": [spec.alias]}],
        },
        "Mode": {"Replicated": {"Replicas": spec.replicas}},
        "UpdateConfig": {
            **_one_after_the_other("rollback", order),
            "Delay": 10 * _SECOND,
            "Monitor": 15 * _SECOND,
            "MaxFailureRatio": 0.3,
        },
        "RollbackConfig": _one_after_the_other("pause", order),
        "EndpointSpec": {
            "Mode": spec.endpoint_mode.value,
            "Ports": [_port(port, spec.endpoint_mode) for port in spec.ports],
        },
    }


def is_deployed_by_us(document: Document) -> bool:
    """Tell whether what the container is was told by us: of an adopted service it is its owner's."""
    container = document["TaskTemplate"].get("ContainerSpec") or {}
    return DEPLOYMENT_LABEL in (container.get("Labels") or {})


def moved(
    document: Document,
    node_id: str,
    labels: Mapping[str, str],
    order: str = "start-first",
    restart: Document | None = None,
) -> Document:
    """The service pinned elsewhere: what its container is stays as it was, so that one which runs there is not
    replaced.

    The swarm is to start the new container first, or stop the old one, and to stop where that fails: whoever moves it
    decides to go back. By the delay of a nanosecond (`rules.owner_specs.MARK`) the update is known for one of ours.
    `restart` takes the place of its restart policy, which is a part of what a container is.
    """
    template = {**document["TaskTemplate"], **({"RestartPolicy": restart} if restart else {})}
    placement = template.get("Placement") or {}
    others = [constraint for constraint in placement.get("Constraints") or [] if not _PINNED.fullmatch(constraint)]
    return {
        **document,
        "Labels": {**(document.get("Labels") or {}), **labels},
        "TaskTemplate": {**template, "Placement": {**placement, "Constraints": [*others, _pin(node_id)]}},
        "UpdateConfig": {**(document.get("UpdateConfig") or {}), **_one_after_the_other("pause", order), "Delay": 1},
    }


def without_container(document: Document) -> Document:
    """The service with no container. Raises EngineRefused where it is none that has a number of them."""
    if "Replicated" not in document["Mode"]:
        raise EngineRefused(f"the service {document['Name']} runs on every node and cannot be stopped, only removed")
    return {**document, "Mode": {"Replicated": {"Replicas": 0}}}


def with_placement(document: Document) -> Document:
    """A service's document that says of its placement something, if nothing: engines (20.10.24) have ended over one
    that no longer said anything, and the swarm's manager with them."""
    template = document["TaskTemplate"]
    return {**document, "TaskTemplate": {**template, "Placement": template.get("Placement") or {}}}


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


def _one_after_the_other(when_it_fails: str, order: str = _START_FIRST) -> Document:
    return {"Parallelism": 1, "Order": order, "FailureAction": when_it_fails}


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
    return {"NanoCPUs": round(limits.cpu_cores * NANO), "MemoryBytes": round(limits.memory_mb * MEGABYTE)}


def _reservations(limits: Capacity) -> dict[str, int]:
    reserved = reserved_for(limits)
    return {"NanoCPUs": reserved.cpus, "MemoryBytes": reserved.memory}


def _port(port: Port, mode: EndpointMode) -> Document:
    return {
        "Protocol": port.protocol,
        "TargetPort": port.target,
        "PublishedPort": port.published,
        "PublishMode": "ingress" if mode is EndpointMode.VIP else "host",
    }
