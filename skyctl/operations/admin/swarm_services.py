"""Everything that the swarm runs, whoever deployed it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from skyctl.domain.cluster import Worker
from skyctl.domain.engine import EngineNode, EngineService, NodeTask, Observation, Occupant
from skyctl.domain.errors import ServiceNotFound, ValidationError
from skyctl.domain.logs import LogLine, LogOptions
from skyctl.domain.workloads import Organization, Place, Service, SwarmDetails, SwarmService
from skyctl.operations.shared import image_volumes, lookup
from skyctl.operations.shared.context import Context
from skyctl.rules import owner_specs as owner_rules
from skyctl.rules import services as rules
from skyctl.rules.tasks import occupants, runs
from skyctl.store import db, owner_specs, services, workers

SHORTEST = 4
MOVED_LAST = "`docker service rollback` goes back to before the last move; use `skyctl services rollback`"


def everything(context: Context) -> list[SwarmService]:
    """Return every service of the swarm by name, with where its containers run. Raises EngineUnavailable."""
    observation = context.engine().observe()
    with context.db.transaction() as tx:
        observation = image_volumes.known(tx, observation)
        managed = services.engine_ids(tx)
        held = _held(tx, observation.nodes)
    found = sorted(observation.services.values(), key=lambda service: (service.name, service.id))
    return [
        SwarmService(service, service.id in managed, _places(service, observation.nodes, held)) for service in found
    ]


@dataclass(frozen=True, slots=True)
class Known:
    """A service as the swarm has it, and as it is under management, where it is."""

    engine: EngineService
    managed: Service | None

    @property
    def name(self) -> str:
        """The name that it goes by: ours, else the swarm's."""
        return self.managed.spec.name if self.managed else self.engine.name


def find(context: Context, reference: str, organization: Organization | None = None) -> Known:
    """Return the service of the swarm that a reference names: one under management by its name or id, as elsewhere,
    else any by the swarm's name, id or a unique beginning of that (4 characters at least).

    Raises ServiceNotFound, ValidationError where several fit, EngineUnavailable.
    """
    try:
        managed = lookup.find_service(context, reference, organization)
    except ServiceNotFound:
        if organization:
            raise
        engine_service = _named(context, reference)
        with context.db.transaction() as tx:
            return Known(engine_service, services.by_engine_id(tx, engine_service.id))
    swarm_service_id = managed.current.swarm_service_id if managed.current else None
    found = context.engine().observe([swarm_service_id]).services if swarm_service_id else {}
    for engine_service in found.values():
        if rules.is_ours(engine_service.labels, managed.id):
            return Known(engine_service, managed)
    if swarm_service_id is None:
        hint = "what the panel deployed has the swarm's name: see `skyctl services list --all`"
        raise ServiceNotFound(f"skyctl has not deployed {managed.spec.name!r}", hint)
    raise ServiceNotFound(f"the engine has no service {managed.spec.name!r}", "deploy it again")


def _named(context: Context, reference: str) -> EngineService:
    everything = context.engine().observe().services.values()
    by_id = [each for each in everything if len(reference) >= SHORTEST and each.id.startswith(reference)]
    meant = [each for each in everything if reference in (each.name, each.id)] or by_id
    if not meant:
        near = lookup.did_you_mean(reference, [each.name for each in everything])
        raise ServiceNotFound(f"the swarm has no service {reference!r}", f"{near}see `skyctl services list --all`")
    if len(meant) > 1:
        several = ", ".join(f"{each.name} ({each.id})" for each in meant)
        raise ValidationError(f"{reference!r} means several services: {several}", "give more of the id")
    return meant[0]


def details(context: Context, known: Known) -> SwarmDetails:
    """Return what may be shown of a service. Raises EngineUnavailable."""
    nodes, document = context.engine().observe(()).nodes, context.engine().read(known.engine.id)
    with context.db.transaction() as tx:
        observation = image_volumes.known(tx, Observation(nodes, {known.engine.id: known.engine}))
        engine_service = observation.services[known.engine.id]
        held, kept = _held(tx, observation.nodes), owner_specs.get(tx, engine_service.id)
    places = _places(engine_service, observation.nodes, held)
    service = SwarmService(engine_service, known.managed is not None, places)
    if document is None:
        return SwarmDetails(service)
    container = document.spec["TaskTemplate"].get("ContainerSpec") or {}
    is_moved = (
        kept is not None
        and document.former is not None
        and not owner_rules.is_changed(document.spec, kept.spec, kept.excluded)
    )
    return SwarmDetails(
        service,
        sorted(each.partition("=")[0] for each in container.get("Env") or []),
        sorted(each.get("SecretName", "") for each in container.get("Secrets") or []),
        sorted(each.get("ConfigName", "") for each in container.get("Configs") or []),
        MOVED_LAST if is_moved else "",
    )


def logs(context: Context, known: Known, options: LogOptions) -> Iterator[tuple[LogLine, str]]:
    """Return the lines that a service's containers write, each with its node's hostname. Raises EngineRefused,
    EngineUnavailable."""
    nodes = context.engine().observe(()).nodes
    for line in context.engine().logs(known.engine.id, options):
        node = nodes.get(line.node_id)
        yield line, node.hostname if node else line.node_id


def on_worker(context: Context, worker: Worker) -> list[Occupant]:
    """Return what runs on a worker's node, by name; nothing where its node is not confirmed. Raises
    EngineUnavailable."""
    node_id = worker.confirmed_node
    return occupants(context.engine().tasks_on([node_id])) if node_id else []


def on_workers(context: Context, page: Sequence[Worker]) -> dict[UUID, list[Occupant]]:
    """Return what runs on the nodes of workers, by name; of those whose nodes are not confirmed nothing. Raises
    EngineUnavailable."""
    there: defaultdict[str, list[NodeTask]] = defaultdict(list)
    for service in context.engine().observe().services.values():
        for task in service.tasks:
            there[task.node_id or ""].append(NodeTask(service.id, service.name, task))
    return {worker.id: occupants(there[worker.confirmed_node]) if worker.confirmed_node else [] for worker in page}


def _held(tx: db.Transaction, nodes: Mapping[str, EngineNode]) -> dict[str, str]:
    """The names of the workers, by the nodes that are theirs."""
    by_node, names = workers.by_node(tx, nodes), workers.names_of(tx)
    return {node_id: names[worker_id] for node_id, worker_id in by_node.items() if worker_id in names}


def _places(service: EngineService, nodes: Mapping[str, EngineNode], held: Mapping[str, str]) -> list[Place]:
    counts = Counter(task.node_id for task in service.tasks if runs(task) and task.node_id)
    places = [
        Place(held.get(node_id), nodes[node_id].hostname if node_id in nodes else node_id, count)
        for node_id, count in counts.items()
    ]
    return sorted(places, key=lambda place: place.worker_name or place.hostname)
