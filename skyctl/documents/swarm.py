"""The JSON documents of what the swarm runs, whoever deployed it."""

from collections.abc import Sequence

from skyctl.documents import manifest
from skyctl.documents.http import Document
from skyctl.domain.logs import LogLine
from skyctl.domain.workloads import SwarmDetails, SwarmService


def swarm_services_document(services: Sequence[SwarmService]) -> Document:
    """Every service of the swarm, whoever deployed it."""
    return {"services": [_swarm_service(service) for service in services], "total": len(services)}


def _swarm_service(service: SwarmService) -> Document:
    engine = service.engine
    return {
        "name": engine.name,
        "swarmServiceId": engine.id,
        "managed": service.is_managed,
        "mode": engine.mode.value,
        "wanted": service.wanted,
        "running": service.running,
        "places": [
            {"workerName": place.worker_name, "hostname": place.hostname, "containers": place.containers}
            for place in service.places
        ],
        "image": engine.image,
        "ports": [manifest.port_text(port) for port in engine.ports],
        "mounts": [manifest.mount_text(mount) for mount in engine.mounts],
        "stack": engine.stack or None,
    }


def log_line_document(line: LogLine, hostname: str) -> Document:
    """A line that a container wrote, and on which node."""
    return {"at": line.at, "node": hostname, "task": line.task_id, "text": line.text}


def swarm_details_document(details: SwarmDetails) -> Document:
    """A service as the swarm has it; of its variables, secrets and configs only the names."""
    engine = details.service.engine
    return {
        **_swarm_service(details.service),
        "labels": dict(engine.labels),
        "constraints": list(engine.requirements.constraints),
        "variables": list(details.variables),
        "secrets": list(details.secrets),
        "configs": list(details.configs),
        "update": engine.update or None,
        "updateMessage": engine.update_message or None,
        "rollback": details.way_back or None,
    }
