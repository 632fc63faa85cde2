"""Whether the node of a removed worker may be taken out of the swarm, and what becomes of one that stays."""

from skyctl.domain.engine import Observation
from skyctl.rules.tasks import is_on

MOST_NAMED = 5


def why_it_stays(swarm: Observation, node_id: str) -> str:
    """Return why a node must stay in the swarm; empty where nothing speaks against taking it out."""
    node = swarm.nodes.get(node_id)
    if node and node.is_manager:
        return "it manages the swarm"
    left = [service.name for service in swarm.services.values() if any(is_on(task, node_id) for task in service.tasks)]
    if left and node and node.is_up:
        return f"it runs containers of services that skyctl does not manage: {', '.join(left[:MOST_NAMED])}"
    return ""


def is_closed(swarm: Observation, node_id: str) -> bool:
    """Tell whether a node takes no new containers."""
    node = swarm.nodes.get(node_id)
    return node is not None and node.availability != "active"
