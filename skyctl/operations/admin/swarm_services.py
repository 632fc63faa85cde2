"""Everything that the swarm runs, whoever deployed it."""

from collections import Counter
from collections.abc import Mapping

from skyctl.domain.cluster import Worker
from skyctl.domain.engine import EngineNode, EngineService, Occupant
from skyctl.domain.workloads import Place, SwarmService
from skyctl.operations.shared.context import Context
from skyctl.rules.tasks import occupants, runs
from skyctl.store import services, workers


def everything(context: Context) -> list[SwarmService]:
    """Return every service of the swarm by name, with where its containers run. Raises EngineUnavailable."""
    observation = context.engine().observe()
    with context.db.transaction() as tx:
        managed = services.engine_ids(tx)
        by_node, names = workers.by_node(tx, observation.nodes), workers.names_of(tx)
    held = {node_id: names[worker_id] for node_id, worker_id in by_node.items() if worker_id in names}
    found = sorted(observation.services.values(), key=lambda service: (service.name, service.id))
    return [
        SwarmService(service, service.id in managed, _places(service, observation.nodes, held)) for service in found
    ]


def on_worker(context: Context, worker: Worker) -> list[Occupant]:
    """Return what runs on a worker's node, by name; nothing where its node is not confirmed. Raises
    EngineUnavailable."""
    node_id = worker.confirmed_node
    return occupants(context.engine().tasks_on(node_id)) if node_id else []


def _places(service: EngineService, nodes: Mapping[str, EngineNode], held: Mapping[str, str]) -> list[Place]:
    counts = Counter(task.node_id for task in service.tasks if runs(task) and task.node_id)
    places = [
        Place(held.get(node_id), nodes[node_id].hostname if node_id in nodes else node_id, count)
        for node_id, count in counts.items()
    ]
    return sorted(places, key=lambda place: place.worker_name or place.hostname)
