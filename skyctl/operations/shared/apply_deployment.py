"""How the engine is told of a deployment, by the command that wrote it down, or by the monitor where that was
interrupted."""

from uuid import UUID

from skyctl.domain.errors import EngineRefused
from skyctl.domain.workloads import DeploymentStatus, Service
from skyctl.operations.shared.context import Context
from skyctl.rules import services as rules
from skyctl.store import db, events, services


def apply_deployment(context: Context, service: Service, deployment_id: UUID, node_id: str) -> None:
    """Tell the engine, and note that; where it refuses, the deployment has failed, and the one before is the current
    one again.

    Where the service was removed meanwhile, so is the engine's. Raises EngineUnavailable, EngineRefused.
    """
    engine = context.engine()
    try:
        swarm_service_id = engine.deploy(rules.engine_spec(service, deployment_id, node_id))
    except EngineRefused as error:
        with context.db.transaction() as tx:
            events.lock(tx)
            services.note_applied(tx, deployment_id, None)
            services.set_deployment(tx, deployment_id, DeploymentStatus.FAILED, log=error.message)
            if _is_current(tx, service.id, deployment_id):
                services.restore(tx, service.id, but=deployment_id)
        raise
    with context.db.transaction() as tx:
        events.lock(tx)
        services.note_applied(tx, deployment_id, swarm_service_id)
        is_removed = services.get(tx, service.id) is None
        if is_removed:
            services.set_deployment(tx, deployment_id, DeploymentStatus.STOPPED)
        db.notify_news(tx)
    if is_removed:
        engine.remove(swarm_service_id)


def _is_current(tx: db.Transaction, service_id: UUID, deployment_id: UUID) -> bool:
    service = services.get(tx, service_id, lock=True)
    return service is not None and service.current is not None and service.current.id == deployment_id
