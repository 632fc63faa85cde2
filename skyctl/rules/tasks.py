"""Conclusions from a service's containers, as the engine reports them."""

from collections.abc import Iterable

from skyctl.domain.engine import EngineService, EngineTask, NodeTask, Occupant

# The label by which a service, and its containers, say whose they are.
DEPLOYMENT_LABEL = "skypanel.deployment.id"
# Docker's words for a task whose container has ended, or will never be.
GOING_ON = ("preparing", "ready", "starting")
COMING = ("assigned", "accepted", *GOING_ON)
ENDED = ("complete", "failed", "shutdown", "rejected", "orphaned", "remove")


def runs(task: EngineTask) -> bool:
    """Tell whether a container runs and is to; it is healthy then, where its image has a health check."""
    return task.state == "running" and task.wanted == "running"


def has_stopped(service: EngineService, node_id: str | None) -> bool:
    """Tell whether no container of the service is left on a node, as far as the engine knows."""
    return not any(is_on(task, node_id) for task in service.tasks)


def makes_progress(service: EngineService, source: str | None) -> bool:
    """Tell whether a container of a service is on its way off a node: it is fetched, or starts and is not healthy yet,
    and nothing speaks against it. One that its node's engine has not taken makes none."""
    return any(
        task.wanted in ("running", "ready") and task.state in GOING_ON and not task.error and task.node_id != source
        for task in service.tasks
    )


def trouble(service: EngineService, node_id: str | None) -> str:
    """The engine's last error about the containers of a service on a node, or about one that finds none; empty for
    none."""
    errors = [task.error for task in service.tasks if task.error and task.node_id in (node_id, None)]
    return errors[-1] if errors else ""


def is_on(task: EngineTask, node_id: str | None) -> bool:
    """Tell whether a container is on a node, or on its way to it."""
    return task.node_id == node_id and task.state not in ENDED


def occupants(tasks: Iterable[NodeTask]) -> list[Occupant]:
    """What has not ended on a node, of all that the engine has there, by name: a container that is stopping is there
    until it has stopped."""
    there: dict[tuple[str, str], list[EngineTask]] = {}
    for service_id, name, task in tasks:
        if task.state not in (*ENDED, "new", "pending"):
            there.setdefault((name, service_id), []).append(task)
    return [
        Occupant(
            service_id,
            name,
            len(found),
            sum(task.state in ("starting", "running") for task in found),
            sum(task.wanted not in ("running", "ready", "complete") for task in found),
        )
        for (name, service_id), found in sorted(there.items())
    ]
