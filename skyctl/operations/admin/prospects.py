"""Where a service could be moved to now: each worker, with the rule that excludes it, or what it is ranked by."""

from uuid import UUID

from skyctl.domain.states import MigrationState
from skyctl.domain.workloads import Migration, Outlook, Service
from skyctl.operations.shared import candidates, image_volumes
from skyctl.operations.shared.candidates import Ground
from skyctl.operations.shared.context import Context
from skyctl.rules import local_state
from skyctl.rules import prospects as rules
from skyctl.rules.local_state import Way
from skyctl.store import migrations

BEGUN = (MigrationState.STARTING, MigrationState.VERIFYING)


def outlook(context: Context, service: Service) -> Outlook:
    """Return where a service could be moved to, or what excludes each worker. Nothing is changed.

    Raises EngineUnavailable.
    """
    ground = candidates.ground(context.engine().observe())
    with context.db.transaction() as tx:
        ground = ground._replace(swarm=image_volumes.known(tx, ground.swarm))
        engine_id = service.current.swarm_service_id if service.current else None
        move = next(iter(migrations.unfinished(tx, service.id, engine_id)), None)
        found = candidates.candidates(tx, ground)
    if service.spec.replicas == 1:
        demand = candidates.move_demand(service, ground, move.avoid if move else frozenset())
        prospects = rules.prospects(demand, found, context.health, _target(move))
    else:
        prospects = rules.of_swarm(candidates.swarm_demand(service, ground), found)
    return Outlook(service, move, _stays(service, ground), prospects)


def _target(move: Migration | None) -> UUID | None:
    return move.target_worker_id if move and move.state in BEGUN else None


def _stays(service: Service, ground: Ground) -> str:
    """Why no drain moves it; empty where one does."""
    engine = ground.swarm.services.get((service.current.swarm_service_id if service.current else None) or "")
    if engine is None:
        return ""
    way, reason = local_state.moving(local_state.leaving(engine, engine.node_id))
    return reason if way is Way.STAYS else ""
