"""Apply a deployment that was written down to the engine: by the command that wrote it, or by the monitor where that
command was interrupted.

The engine's version of the service is read first, then the service's row under the event log's lock: what is applied by
that version is therefore the service's current deployment, or meets a conflict and is decided about again.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.engine import EngineSpec, ServiceVersion
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable, SkyctlError, Superseded
from skyctl.domain.states import DeploymentStatus
from skyctl.domain.text import reference
from skyctl.domain.workloads import Deployment, Service
from skyctl.operations.shared.context import Context, Engine
from skyctl.rules import owner_specs
from skyctl.rules import services as rules
from skyctl.rules.tasks import DEPLOYMENT_LABEL
from skyctl.store import db, deployments, services, workers

# Read, checked and changed within milliseconds: only somebody who changes the service without a pause comes between
# each time.
ATTEMPTS = 10


class Pending(NamedTuple):
    """A deployment that is still to be applied, and whether it is to keep the containers that there are."""

    spec: EngineSpec
    keeps_containers: bool


Recording = Callable[[], AbstractContextManager[db.Transaction]]


def apply_deployment(context: Context, service: Service, deployment_id: UUID, recording: Recording) -> None:
    """Apply a service's deployment to the engine and note that, if it is the current one and not applied yet.

    Where the engine refuses it, or has another service of that name, the deployment has failed and the one that the
    engine has is the current one again.
    `recording` begins a transaction that may append events; of the monitor, one that holds its lease.

    Raises Superseded where another deployment became the current one meanwhile, or the service was removed;
    EngineUnavailable, EngineConflict (both leave it to the monitor), EngineRefused.
    """
    engine, conflict = context.engine(), EngineConflict("")
    for _ in range(ATTEMPTS):
        existing = _existing(engine, service)
        with recording() as tx:
            pending = _pending(tx, service, deployment_id)
        if isinstance(pending, SkyctlError):
            raise pending
        if pending is None:
            return
        if existing and not rules.is_ours(existing.labels, service.id):
            _note_refused(service.id, deployment_id, rules.NOT_OURS, recording)
            raise EngineRefused(rules.NOT_OURS)
        try:
            swarm_service_id = _order(engine, service, pending, existing)
        except EngineConflict as error:
            conflict = error
        except EngineRefused as error:
            _note_refused(service.id, deployment_id, error.message, recording)
            raise
        else:
            _note_applied(context, service, deployment_id, swarm_service_id, recording)
            return
    raise conflict


def _existing(engine: Engine, service: Service) -> ServiceVersion | None:
    """What the engine has of a service: under the name that we give it, else under the one that its owner gave."""
    if not service.spec.adopted:
        return engine.find(rules.engine_name(service))
    swarm_service_id = service.current.swarm_service_id if service.current else None
    document = engine.read(swarm_service_id) if swarm_service_id else None
    return document and ServiceVersion(swarm_service_id or "", document.version, document.spec.get("Labels") or {})


def _order(engine: Engine, service: Service, pending: Pending, existing: ServiceVersion | None) -> str:
    """Have the engine run a deployment; return the service's id. Where it keeps the containers that there are, only
    their number is changed: what else there is of it stays as it is."""
    if not (pending.keeps_containers or service.spec.adopted):
        return engine.deploy(pending.spec, existing.version if existing else None)
    if existing is None and service.spec.adopted:
        raise EngineRefused(rules.MISSING)
    if existing is None:
        return engine.deploy(pending.spec, None)
    document = engine.read(existing.id)
    if document is None or document.version != existing.version:
        raise EngineConflict("the service was changed, or removed, at the same moment")
    ours = {DEPLOYMENT_LABEL: pending.spec.labels[DEPLOYMENT_LABEL]}
    engine.write(existing.id, existing.version, owner_specs.scaled(document.spec, pending.spec.replicas, ours))
    return existing.id


def remove_leftover(context: Context, service: Service, deployment_id: UUID, recording: Recording) -> None:
    """Remove from the engine what a deployment may have created of a service that was removed meanwhile, and note that.

    Removing names no version: a service that was deployed again at the same moment is applied once more.
    """
    engine = context.engine()
    leftover = engine.find(rules.engine_name(service))
    if leftover and not rules.is_ours(leftover.labels, service.id):
        leftover = None
    with recording() as tx:
        is_removed = services.get(tx, service.id, lock=True) is None
    if leftover and is_removed:
        engine.remove(leftover.id)
    with recording() as tx:
        deployments.note_applied(tx, deployment_id, None)
        revived = services.get(tx, service.id, lock=True)
        if leftover and is_removed and revived and revived.current:
            deployments.set_apply_pending(tx, revived.current.id)


def _pending(tx: db.Transaction, service: Service, deployment_id: UUID) -> Pending | Superseded | EngineRefused | None:
    """Return what to apply for a deployment; None where it was applied already, or why it is not to be applied.

    That is Superseded where it is no longer the service's current one, EngineRefused where the engine refused it when
    somebody else applied it, EngineConflict where its worker has no node.
    """
    current_service = services.get(tx, service.id, lock=True)
    current, deployment = _current(current_service), deployments.get(tx, deployment_id)
    is_pending = deployments.is_apply_pending(tx, deployment_id)
    if deployment and deployment.status is DeploymentStatus.FAILED:
        return EngineRefused(deployment.log)
    if current_service is None or current is None or current.id != deployment_id:
        if current and is_pending:
            deployments.note_applied(tx, deployment_id, None)
            deployments.set_status(tx, deployment_id, DeploymentStatus.STOPPED)
        return _superseded(service, current)
    if not is_pending:
        return None
    is_placed_by_swarm = current_service.spec.replicas > 1
    node_id = None if is_placed_by_swarm else _node(tx, current)
    if node_id is None and not is_placed_by_swarm:
        return EngineConflict(f"{current.worker_name} is no node of the swarm any more")
    keeps_containers = deployments.keeps_containers(tx, deployment_id)
    return Pending(rules.engine_spec(current_service, deployment_id, node_id), keeps_containers)


def _current(service: Service | None) -> Deployment | None:
    return service.current if service else None


def _node(tx: db.Transaction, deployment: Deployment) -> str | None:
    if deployment.worker_id is None:
        return None
    return workers.nodes(tx, [deployment.worker_id]).get(deployment.worker_id)


def _note_refused(service_id: UUID, deployment_id: UUID, reason: str, recording: Recording) -> None:
    """Note that the engine refused a deployment, unless somebody else has applied it meanwhile.

    Where a command was killed between the engine and its note, the engine may have what nobody noted: the restored
    deployment is then applied once more.
    """
    with recording() as tx:
        current = _current(services.get(tx, service_id, lock=True))
        if not deployments.is_apply_pending(tx, deployment_id):
            return
        deployments.note_applied(tx, deployment_id, None)
        deployments.set_status(tx, deployment_id, DeploymentStatus.FAILED, log=reason)
        if current and current.id == deployment_id:
            restored = services.restore(tx, service_id, but=deployment_id)
            if deployments.give_up_pending(tx, service_id) and restored:
                deployments.set_apply_pending(tx, restored)


def _note_applied(
    context: Context, service: Service, deployment_id: UUID, swarm_service_id: str, recording: Recording
) -> None:
    """Note that the engine has a deployment, and apply the current one where that is another by now."""
    with recording() as tx:
        current_service = services.get(tx, service.id, lock=True)
        current = _current(current_service)
        if current:
            deployments.note_applied(tx, deployment_id, swarm_service_id)
        is_behind = current is not None and current.id != deployment_id and _came_after(tx, current, deployment_id)
        if is_behind:
            deployments.set_status(tx, deployment_id, DeploymentStatus.STOPPED)
        elif current and current.id != deployment_id:
            deployments.set_status(tx, deployment_id, DeploymentStatus.DEPLOYING)
            deployments.set_apply_pending(tx, current.id)
        db.notify_news(tx)
    if current_service is None or current is None:
        remove_leftover(context, service, deployment_id, recording)
        raise _superseded(service, None)
    if is_behind:
        raise _superseded(service, current)
    if current.id != deployment_id:
        with suppress(EngineRefused, EngineUnavailable):  # noted with that deployment, or left to the monitor
            apply_deployment(context, current_service, current.id, recording)
        raise _superseded(service, current)


def _came_after(tx: db.Transaction, current: Deployment, deployment_id: UUID) -> bool:
    """Tell whether the engine got the current deployment after another one.

    It did where it is the newer one and is applied: applied before, it would have changed the version by which the
    other one was deployed.
    """
    other = deployments.get(tx, deployment_id)
    is_newer = other is not None and current.created_at > other.created_at
    return is_newer and not deployments.is_apply_pending(tx, current.id)


def _superseded(service: Service, current: Deployment | None) -> Superseded:
    name, image, known = service.spec.name, service.spec.image, reference(service.spec.name, service.id)
    if current is None:
        return Superseded(f"{name} was removed while {image} was deployed", "deploy it again if it is still wanted")
    return Superseded(
        f"{name} was deployed again, with {current.image}, before {image} was",
        f"see `skyctl services show {known}`; deploy {image} again if that is the one to run",
    )
