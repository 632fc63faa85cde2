"""Conclusions from a service's containers, as the engine reports them."""

from collections.abc import Iterator

from skyctl.domain.engine import EngineService, EngineTask, Observation, Occupant

# The label by which a service, and its containers, say whose they are.
DEPLOYMENT_LABEL = "skypanel.deployment.id"
# Docker's words for a task whose container has ended, or will never be.
ENDED = ("complete", "failed", "shutdown", "rejected", "orphaned", "remove")


def runs(task: EngineTask) -> bool:
    """Tell whether a container runs and is to; it is healthy then, where its image has a health check."""
    return task.state == "running" and task.wanted == "running"


def has_stopped(service: EngineService, node_id: str | None) -> bool:
    """Tell whether no container of the service is left on a node, as far as the engine knows."""
    return not any(is_on(task, node_id) for task in service.tasks)


def trouble(service: EngineService, node_id: str | None) -> str:
    """The engine's last error about the containers of a service on a node, or about one that finds none; empty for
    none."""
    errors = [task.error for task in service.tasks if task.error and task.node_id in (node_id, None)]
    return errors[-1] if errors else ""


def is_on(task: EngineTask, node_id: str | None) -> bool:
    """Tell whether a container is on a node, or on its way to it."""
    return task.node_id == node_id and task.state not in ENDED


def occupants(seen: Observation, node_id: str) -> list[Occupant]:
    """What the engine has on a node that has not ended, by name: a container that is stopping is there until it has
    stopped."""
    return sorted(_occupants(seen, node_id), key=lambda occupant: (occupant.name, occupant.service_id))


def _occupants(seen: Observation, node_id: str) -> Iterator[Occupant]:
    for service in seen.services.values():
        there = [task for task in service.tasks if is_on(task, node_id)]
        if there:
            running = sum(task.state == "running" for task in there)
            ending = sum(task.wanted not in ("running", "ready", "complete") for task in there)
            yield Occupant(service.id, service.name, len(there), running, ending)
