"""What the engine shows, with the volumes that only the agents see: those that images declare."""

from collections.abc import Mapping
from dataclasses import replace

from skyctl.domain.engine import EngineService, Observation
from skyctl.rules import local_state
from skyctl.store import db, workers


def known(tx: db.Transaction, seen: Observation) -> Observation:
    """Return what the engine shows, each service with the image volumes that agents have told of where it runs."""
    return replace(seen, services=known_of(tx, seen.services))


def known_of(tx: db.Transaction, services: Mapping[str, EngineService]) -> Mapping[str, EngineService]:
    """Return these services, by their ids, each with the image volumes that agents have told of where it runs."""
    nodes = {task.node_id for service in services.values() for task in service.tasks if task.node_id}
    nodes |= {service.node_id for service in services.values() if service.node_id}
    by_node = workers.image_volumes(tx, nodes, services)
    if not by_node:
        return services
    return {service.id: local_state.with_image_volumes(service, by_node) for service in services.values()}
