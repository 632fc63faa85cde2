"""Where a service could go now: each worker, with the rule that excludes it, or what it is ranked by."""

from skyctl.domain.workloads import Outlook, Service
from skyctl.operations.shared import candidates
from skyctl.operations.shared.context import Context
from skyctl.rules import prospects as rules
from skyctl.store import migrations


def outlook(context: Context, service: Service) -> Outlook:
    """Return where a service could be moved to, or what excludes each worker. Nothing is changed.

    Raises EngineUnavailable.
    """
    ground = candidates.ground(context.engine().observe())
    with context.db.transaction() as tx:
        moves = [move for move in migrations.of_service(tx, service.id) if move.finished_at is None]
        found = candidates.candidates(tx, ground)
    move = moves[0] if moves else None
    demand = candidates.move_demand(service, ground, move.avoid if move else frozenset())
    is_ours = service.spec.replicas == 1
    prospects = rules.prospects(demand, found, context.health) if is_ours else rules.of_swarm(demand, found)
    return Outlook(service, move, prospects)
