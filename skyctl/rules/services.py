"""Services: the order by which the engine runs one, and the state of its deployment by what the engine shows."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import (
    EngineNode,
    EngineService,
    EngineSpec,
    EngineTask,
    Requirements,
    host_ports_of,
    reserved_for,
)
from skyctl.domain.states import DeploymentStatus
from skyctl.domain.workloads import DEFAULT_LIMITS, Service, ServiceSpec
from skyctl.rules import restarts
from skyctl.rules.owner_specs import excluded_by
from skyctl.rules.tasks import DEPLOYMENT_LABEL, ENDED, makes_progress, runs, trouble

SERVICE_LABEL = "skypanel.service.id"
ORGANIZATION_LABEL = "skypanel.organization.id"
NETWORK_LABELS = {"skypanel.network.type": "organization", "skypanel.network.isolated": "true"}
LONGEST_NAME = 63  # of a service, by Docker
LONGEST_SLUG = LONGEST_NAME - len(f"org-{UUID(int=0)}-")
DIGEST = 4
UPDATED = ("", "completed", "rollback_completed")
# What a container that makes no progress and has no error may wait for, by its state.
STALLED = {
    "new": ": its network may have no address left",
    "allocated": ": the swarm has no leader, perhaps",
    "assigned": ": its node's engine has not taken it",
    "accepted": ": its node's engine has not begun",
    "preparing": ": its image is being fetched, perhaps",
    "starting": ": it is not healthy yet",
}
NO_PLACE = "no suitable node"  # so the swarm begins where none fits
NOT_IN_TIME = "it did not run in time, and the engine gives no reason"
MISSING = "the engine no longer has the service: deploy it again"
NOT_OURS = f"the engine's service is another one: its label {SERVICE_LABEL} does not name this service"


def slug(name: str) -> str:
    """A service's name as it stands in names of the engine and of DNS: lower-case letters, digits and hyphens; empty
    where nothing of the name can stand there. One that has to be cut ends with a digest of the whole name."""
    whole = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if len(whole) <= LONGEST_SLUG:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST]
    return f"{whole[: LONGEST_SLUG - DIGEST - 1].strip('-')}-{digest}"


def adopted_limits(observed: Capacity, requested: Capacity) -> Capacity:
    """The amounts that an adopted service reserves: those requested, else the engine's limits on it, else the defaults
    of a service."""
    return Capacity(
        requested.cpu_cores or observed.cpu_cores or DEFAULT_LIMITS.cpu_cores,
        requested.memory_mb or observed.memory_mb or DEFAULT_LIMITS.memory_mb,
        requested.disk_gb or observed.disk_gb or DEFAULT_LIMITS.disk_gb,
    )


def engine_name(service: Service) -> str:
    """Return the name by which the engine knows a service."""
    return f"org-{service.organization_id}-{service.slug}"


def pinned_image(image: str, digest: str | None) -> str:
    """Return an image as the engine is to run it: by its digest, where that is known, so that a name that means another
    image by now changes nothing."""
    return f"{image}@{digest}" if digest else image


def engine_spec(service: Service, deployment_id: UUID, node_id: str | None) -> EngineSpec:
    """Return the order by which the engine runs a service on a node (None: where the swarm places it), with the panel's
    names and labels."""
    spec, organization = service.spec, service.organization_id
    ours = {
        SERVICE_LABEL: str(service.id),
        DEPLOYMENT_LABEL: str(deployment_id),
        ORGANIZATION_LABEL: str(organization),
    }
    return EngineSpec(
        name=engine_name(service),
        network=f"org-{organization}-network",
        alias=service.slug,
        node_id=node_id,
        image=pinned_image(spec.image, service.current.digest if service.current else None),
        limits=spec.limits,
        labels={**spec.labels, **ours},
        network_labels={**NETWORK_LABELS, ORGANIZATION_LABEL: str(organization)},
        environment=spec.environment,
        ports=spec.ports,
        endpoint_mode=spec.endpoint_mode,
        command=spec.command,
        replicas=spec.replicas,
    )


def differs_in_number(service: Service, spec: ServiceSpec) -> bool:
    """Tell whether what is wanted of a service differs from what was in the number of containers, and in nothing that
    makes them anew."""
    return service.spec.replicas != spec.replicas and _what_runs(service.spec) == _what_runs(spec)


def is_scaled(service: Service, spec: ServiceSpec) -> bool:
    """Tell whether the containers that the engine has of a service are those that are wanted, but for their number."""
    current = service.current
    is_applied = current is not None and current.swarm_service_id is not None
    is_alive = current is not None and current.status in (DeploymentStatus.DEPLOYING, DeploymentStatus.RUNNING)
    return is_applied and (is_alive or spec.adopted) and differs_in_number(service, spec)


def _what_runs(spec: ServiceSpec) -> tuple[Any, ...]:
    lists = (tuple(spec.ports), tuple(spec.command), dict(spec.environment), dict(spec.labels))
    return (spec.adopted, spec.name, spec.image, spec.limits, spec.endpoint_mode, *lists)


def requirements(spec: ServiceSpec) -> Requirements:
    """Return what a service as it is ordered asks of its node, its pin aside."""
    return Requirements(reserved=reserved_for(spec.limits), host_ports=host_ports_of(spec.ports, spec.endpoint_mode))


def is_ours(labels: Mapping[str, str], service_id: UUID) -> bool:
    """Tell whether a service of the engine is this one, by its own label. A row may name any of the engine's services,
    by mistake or because somebody wrote it who may not order the engine: so nothing is ordered by a row alone."""
    return labels.get(SERVICE_LABEL) == str(service_id)


class DeploymentVerdict(NamedTuple):
    """The state of a deployment: its status, the engine's error, a container of it, and the node that it runs on, where
    it is pinned."""

    status: DeploymentStatus
    log: str = ""
    container_id: str | None = None
    node_id: str | None = None


def assess_deployment(
    status: DeploymentStatus,
    deployment_id: str,
    created_as: str,
    service: EngineService | None,
    *,
    is_untried: bool = False,
    is_late: bool = False,
) -> DeploymentVerdict:
    """Return the state of a deployment that has had this status; read from the top, the first that fits decides.

    the engine has no such service                     failed
    somebody stopped it (no container is wanted)       stopped
    the engine went back to what was before            rolled_back
    untried, and each of its containers ends           failed
    of several the swarm is still updating some        as it was, or failed where it is late
    a container of it runs                             running
    another one is on its way                          as it was, or failed where it is late; the last error is kept
    none is, the engine has given up                   failed

    `created_as` is the deployment by whose order its containers were created; empty where that is not known. It is
    untried until one of its containers has run for some minutes.
    """
    if service is None:
        return DeploymentVerdict(DeploymentStatus.FAILED, MISSING)
    if service.replicas == 0:
        return DeploymentVerdict(DeploymentStatus.STOPPED)
    error, is_other = _trouble(service), service.labels.get(DEPLOYMENT_LABEL) != deployment_id
    is_coming = any(_is_coming(task, created_as) for task in service.tasks)
    has_gone_back = is_other and (service.update.startswith("rollback") or not is_coming)
    if status is DeploymentStatus.DEPLOYING and has_gone_back:
        return DeploymentVerdict(DeploymentStatus.ROLLED_BACK, error or service.update_message)
    if is_untried and restarts.keeps_ending(service, created_as):
        return DeploymentVerdict(DeploymentStatus.FAILED, restarts.last_end(service))
    mine = [task for task in service.tasks if created_as in ("", task.deployment_id)]
    running = next((task for task in mine if runs(task)), None)
    is_updating = status is DeploymentStatus.DEPLOYING and service.replicas != 1 and service.update == "updating"
    if running and not is_updating:
        where = running.node_id if service.node_id else None
        return DeploymentVerdict(DeploymentStatus.RUNNING, "", running.container_id, where)
    if is_coming or not mine:
        if is_late:
            return DeploymentVerdict(DeploymentStatus.FAILED, error or NOT_IN_TIME)
        kept = DeploymentStatus.DEPLOYING if status is DeploymentStatus.FAILED else status
        return DeploymentVerdict(kept, error)
    return DeploymentVerdict(DeploymentStatus.FAILED, error or restarts.last_end(service) or "its container has ended")


def goes_on(service: EngineService) -> bool:
    """Tell whether a deployment makes progress: a container of it is fetched or starts, or of several the swarm is
    replacing one after the other, and nothing speaks against it."""
    is_rolling = service.replicas != 1 and service.update == "updating" and not _trouble(service)
    return makes_progress(service, None) or is_rolling


def no_place(service: EngineService, created_as: str) -> str:
    """Return the engine's words about a container of a deployment that no node may take; empty where there is none."""
    waiting = [task.error for task in service.tasks if task.state == "pending" and _is_coming(task, created_as)]
    return next((error for error in reversed(waiting) if error.startswith(NO_PLACE)), "")


def _is_coming(task: EngineTask, created_as: str) -> bool:
    is_mine = created_as in ("", task.deployment_id)
    return is_mine and task.wanted in ("running", "ready") and task.state not in ENDED


def downtime(service: EngineService) -> str | None:
    """Return why none of a service's containers runs, in the engine's words where it says any; empty where one does;
    None where none is to."""
    if service.replicas == 0:
        return None
    if any(runs(task) for task in service.tasks):
        return ""
    wanted = [task for task in service.tasks if task.wanted in ("running", "ready") and task.state not in ENDED]
    said = next((task.error for task in reversed(wanted) if task.error), "")
    if said or not wanted:
        return said or _trouble(service) or "the engine starts no container for it"
    state = wanted[-1].state
    return f"its container is {state}, and the engine gives no reason{STALLED.get(state, '')}"


def _trouble(service: EngineService) -> str:
    """The engine's last error about a service: where it is pinned, else anywhere."""
    if service.node_id:
        return trouble(service, service.node_id)
    return next((task.error for task in reversed(service.tasks) if task.error), "")


def home(service: EngineService) -> str | None:
    """Return the node that a service of one container is to be pinned to: where the swarm runs it, which had several
    before; None where it is pinned, or the swarm is not done with it."""
    alive = [task for task in service.tasks if task.state not in ENDED]
    if service.node_id or service.replicas != 1 or service.update not in UPDATED or len(alive) != 1:
        return None
    node_id = alive[0].node_id if runs(alive[0]) else None
    return None if node_id in excluded_by(service.requirements.constraints) else node_id


def is_placed_by_swarm(service: EngineService) -> bool:
    """Tell whether the swarm chooses the nodes of a service's containers: several are wanted, and it is not pinned."""
    return service.node_id is None and (service.replicas or 0) > 1


def is_pinned_in_vain(service: EngineService, home: str | None, nodes: Mapping[str, EngineNode]) -> bool:
    """Tell whether nothing of a service runs, since it is pinned where nothing can, though its worker's node, `home`,
    would take it: the pin names the node that the host was before it joined again, or that a rollback by its owner went
    back to."""
    pin = service.node_id
    if pin is None or home is None or pin == home or service.replicas == 0 or any(map(runs, service.tasks)):
        return False
    return not _takes_new(nodes.get(pin)) and _takes_new(nodes.get(home))


def _takes_new(node: EngineNode | None) -> bool:
    return node is not None and node.is_up and node.availability == "active"


def has_surplus(service: EngineService) -> bool:
    """Tell whether more containers of a service run, and are to, than it is to have, and nothing that the swarm has
    under way will end one.

    Where a node is found down while a new container starts elsewhere, the swarm starts one more there. It compares the
    two with what is wanted when the update ends, but not always: then both run until the service is changed (seen in
    Docker 20.10).
    """
    running = sum(runs(task) for task in service.tasks)
    return service.replicas is not None and running > service.replicas > 0 and service.update in UPDATED
