"""Moves of services that the panel made in its tables alone, without the engine: find them, and undo them."""

from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.states import DeploymentStatus, ServiceStatus
from skyctl.store.tables import deployments, services

# The panel ends the deployment of which the engine knows and writes one of its own, in one moment.
_MOVED = sa.text("""
    SELECT s.id AS service_id, theirs.id AS theirs, applied.id AS applied
    FROM container_deployments theirs
    JOIN container_services s ON s.current_deployment_id = theirs.id AND s.status = 'deploying'
    JOIN container_deployments applied ON applied.service_id = s.id AND applied.image_tag = theirs.image_tag
    WHERE theirs.status = 'deploying' AND NOT theirs.by_skyctl AND theirs.worker_id IS NOT NULL
      AND theirs.swarm_service_id IS NULL AND theirs.untold_since IS NULL
      AND applied.status = 'stopped' AND applied.swarm_service_id IS NOT NULL
      AND applied.stopped_at BETWEEN theirs.created_at - interval '10 seconds' AND theirs.created_at
    ORDER BY s.id
""")
_NOW = sa.func.skyctl_now()
NEVER_APPLIED = "the engine was never told of it"


class PanelMove(NamedTuple):
    """A service, the deployment that the panel wrote for it, and the one that the engine has."""

    service_id: UUID
    written: UUID
    applied: UUID


def found(connection: sa.Connection) -> list[PanelMove]:
    """Return the moves that the panel made in its tables alone."""
    return [PanelMove(*row) for row in connection.execute(_MOVED)]


def undo(connection: sa.Connection, move: PanelMove) -> None:
    """Make what the engine has current again, as running; whether it does, the engine is asked afterwards."""
    ended = {"status": DeploymentStatus.STOPPED.value, "stopped_at": _NOW, "deployment_logs": NEVER_APPLIED}
    again = {"status": DeploymentStatus.RUNNING.value, "stopped_at": None}
    for deployment_id, values in ((move.written, ended), (move.applied, again)):
        changed = sa.update(deployments).where(deployments.c.id == deployment_id)
        connection.execute(changed.values(**values, updated_at=_NOW))
    current = sa.update(services).where(services.c.id == move.service_id)
    status = ServiceStatus.RUNNING.value
    connection.execute(current.values(current_deployment_id=move.applied, status=status, updated_at=_NOW))
