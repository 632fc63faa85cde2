"""How the node of a removed worker leaves the swarm, by whichever process may ask the engine."""

from contextlib import suppress

from skyctl.domain.engine import Observation
from skyctl.domain.errors import EngineRefused
from skyctl.operations.shared.context import Engine
from skyctl.rules import nodes


def leave_swarm(engine: Engine, seen: Observation, node_id: str, *, is_closed: bool) -> str:
    """Take a node out of the swarm; return why it stays, empty where it does not. One that stays, and that we closed,
    takes new containers again. Raises EngineUnavailable."""
    stays = nodes.why_it_stays(seen, node_id)
    if not stays:
        try:
            engine.remove_node(node_id)
        except EngineRefused as error:
            stays = error.message
    if stays and is_closed and nodes.is_closed(seen, node_id):
        with suppress(EngineRefused):  # it has left meanwhile
            engine.set_availability(node_id, "active")
    return stays
