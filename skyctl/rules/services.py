"""Services: the order by which the engine runs one, and the state of its deployment by what the engine shows."""

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineService, EngineSpec
from skyctl.domain.states import DeploymentStatus
from skyctl.domain.workloads import DEFAULT_LIMITS, Service
from skyctl.rules.tasks import DEPLOYMENT_LABEL, ENDED, runs, trouble

SERVICE_LABEL = "skypanel.service.id"
ORGANIZATION_LABEL = "skypanel.organization.id"
NETWORK_LABELS = {"skypanel.network.type": "organization", "skypanel.network.isolated": "true"}
LONGEST_NAME = 63  # of a service, by Docker
LONGEST_SLUG = LONGEST_NAME - len(f"org-{UUID(int=0)}-")
DIGEST = 4
UPDATED = ("", "completed", "rollback_completed")
# Nobody reads it: a service that is changed in any way is looked at again by the swarm.
LOOK_AGAIN_LABEL = "skyctl.looked-at-again"
# What a container that makes no progress and has no error may wait for, by its state.
STALLED = {
    "new": ": its network may have no address left",
    "allocated": ": the swarm has no leader, perhaps",
    "assigned": ": its node's engine has not taken it",
    "accepted": ": its node's engine has not begun",
    "preparing": ": its image is being fetched, perhaps",
    "starting": ": it is not healthy yet",
}
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


def engine_spec(service: Service, deployment_id: UUID, node_id: str) -> EngineSpec:
    """Return the order by which the engine runs a service on a node, with the panel's names and labels."""
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
        image=spec.image,
        limits=spec.limits,
        labels={**spec.labels, **ours},
        network_labels={**NETWORK_LABELS, ORGANIZATION_LABEL: str(organization)},
        environment=spec.environment,
        ports=spec.ports,
        endpoint_mode=spec.endpoint_mode,
        command=spec.command,
    )


def is_ours(labels: Mapping[str, str], service_id: UUID) -> bool:
    """Tell whether a service of the engine is this one, by its own label. A row may name any of the engine's services,
    by mistake or because somebody wrote it who may not order the engine: so nothing is ordered by a row alone."""
    return labels.get(SERVICE_LABEL) == str(service_id)


class DeploymentVerdict(NamedTuple):
    """The state of a deployment: its status, the engine's error, its container, and the node that it runs on."""

    status: DeploymentStatus
    log: str = ""
    container_id: str | None = None
    node_id: str | None = None


def assess_deployment(
    status: DeploymentStatus, deployment_id: str, created_as: str, service: EngineService | None
) -> DeploymentVerdict:
    """Return the state of a deployment that has had this status; read from the top, the first that fits decides.

    the engine has no such service                     failed
    somebody stopped it (no container is wanted)       stopped
    the engine went back to what was before            rolled_back
    its container runs                                 running
    another one is on its way                          as it was; the error of the last one is kept
    none is, the engine has given up                   failed

    `created_as` is the deployment by whose order its containers were created; empty where that is not known.
    """
    if service is None:
        return DeploymentVerdict(DeploymentStatus.FAILED, MISSING)
    if service.replicas == 0:
        return DeploymentVerdict(DeploymentStatus.STOPPED)
    error, is_other = trouble(service, service.node_id), service.labels.get(DEPLOYMENT_LABEL) != deployment_id
    if status is DeploymentStatus.DEPLOYING and is_other and service.update.startswith("rollback"):
        return DeploymentVerdict(DeploymentStatus.ROLLED_BACK, error or service.update_message)
    mine = [task for task in service.tasks if created_as in ("", task.deployment_id)]
    running = next((task for task in mine if runs(task)), None)
    if running:
        return DeploymentVerdict(DeploymentStatus.RUNNING, "", running.container_id, running.node_id)
    if any(task.wanted in ("running", "ready") and task.state not in ENDED for task in mine) or not mine:
        kept = DeploymentStatus.DEPLOYING if status is DeploymentStatus.FAILED else status
        return DeploymentVerdict(kept, error)
    return DeploymentVerdict(DeploymentStatus.FAILED, error or "its container has ended")


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
        return said or trouble(service, service.node_id) or "the engine starts no container for it"
    state = wanted[-1].state
    return f"its container is {state}, and the engine gives no reason{STALLED.get(state, '')}"


def has_surplus(service: EngineService) -> bool:
    """Tell whether more containers of a service run, and are to, than it is to have, and nothing that the swarm has
    under way will end one.

    Where a node is found down while a new container starts elsewhere, the swarm starts one more there. It compares the
    two with what is wanted when the update ends, but not always: then both run until the service is changed (seen in
    Docker 20.10).
    """
    running = sum(runs(task) for task in service.tasks)
    return service.replicas is not None and running > service.replicas > 0 and service.update in UPDATED
