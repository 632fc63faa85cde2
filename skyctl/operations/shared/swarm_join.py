"""How a host joins the swarm: asked of the engine by who may, else what the monitor has written down."""

from skyctl.domain.engine import SwarmJoin
from skyctl.domain.errors import EngineElsewhere, EngineUnavailable
from skyctl.operations.shared.context import Context, Engine
from skyctl.store import swarm


def worker_join(context: Context) -> SwarmJoin | None:
    """Return what a host needs to join the swarm as a worker; None where there is no swarm.

    Raises EngineUnavailable where neither the engine nor the monitor tells it.
    """
    unavailable: EngineUnavailable | None = None
    try:
        if join := context.engine().worker_join():
            return join
    except EngineUnavailable as error:
        unavailable = error
    with context.db.transaction() as tx:
        known = swarm.known_join(tx)
    if unavailable and (known is None or not (known.join or isinstance(unavailable, EngineElsewhere))):
        raise unavailable
    return known.join if known else None


def without_engine() -> Engine:
    """Refuse the engine to a process that is not to ask it. Raises EngineElsewhere."""
    raise EngineElsewhere(
        "no monitor has told yet how hosts join the swarm, and `skyctl serve` does not ask the engine",
        "see that `skyctl monitor` runs and reaches the engine: skyctl doctor",
    )
