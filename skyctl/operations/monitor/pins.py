"""Pins of services, by what the engine shows: set where they are missing or in vain, and none for what it places."""

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from skyctl.domain.cluster import Event
from skyctl.domain.engine import Observation
from skyctl.domain.errors import EngineRefused
from skyctl.domain.events import EventKind
from skyctl.domain.states import DeploymentStatus
from skyctl.operations.monitor import orders
from skyctl.operations.monitor.service_events import service_event
from skyctl.operations.shared.leadership import Term
from skyctl.rules import services as rules
from skyctl.rules.tasks import DEPLOYMENT_LABEL, runs
from skyctl.store import deployments, events, workers
from skyctl.store.services import AppliedDeployment

FIRST = UUID(int=0)


def leave_to_the_swarm(term: Term, page: Sequence[AppliedDeployment], observation: Observation) -> None:
    """Note of services of several containers without a pin that they are on no worker, whatever their rows say: the
    panel's rows have no number of containers, and moved as one container all of them would be pinned to one node."""
    placed = [
        applied.deployment_id
        for applied in page
        if applied.worker_id
        and applied.status is DeploymentStatus.RUNNING
        and (service := observation.services.get(applied.swarm_service_id))
        and rules.is_ours(service.labels, applied.service_id)
        and rules.is_placed_by_swarm(service)
    ]
    if placed:
        with term.writing() as tx:
            for deployment_id in placed:
                deployments.set_worker(tx, deployment_id, None)


def pin_anew(term: Term, page: Sequence[AppliedDeployment], observation: Observation) -> list[Event]:
    """Pin services that are pinned in vain to their workers' nodes; return the events."""
    vain = [
        (applied, service)
        for applied in page
        if (service := observation.services.get(applied.swarm_service_id))
        and rules.is_ours(service.labels, applied.service_id)
        and service.node_id
        and not any(map(runs, service.tasks))
    ]
    if not vain:
        return []
    with term.reading() as tx:
        homes = workers.nodes(tx, {applied.worker_id for applied, _ in vain if applied.worker_id})
    written = []
    for applied, service in vain:
        home = homes.get(applied.worker_id or FIRST)
        if home is None or not rules.is_pinned_in_vain(service, home, observation.nodes):
            continue
        with suppress(EngineRefused):  # whoever changed it meanwhile is looked at again
            orders.pin(term, service, home, {DEPLOYMENT_LABEL: str(applied.deployment_id)})
            written.append(service_event(term, EventKind.SERVICE_PINNED_ANEW, applied, ""))
    with term.recording() as tx:
        return events.append(tx, *written)


def pin_the_last(term: Term, page: Sequence[AppliedDeployment], observation: Observation) -> list[Event]:
    """Pin services of which one container is left, of several that the swarm placed, to where that runs, or to their
    worker where it runs on a node that is nobody's; return the events."""
    unpinned = [
        (applied, service, node_id)
        for applied in page
        if applied.worker_id
        and (service := observation.services.get(applied.swarm_service_id))
        and rules.is_ours(service.labels, applied.service_id)
        and (node_id := rules.home(service))
    ]
    if not unpinned:
        return []
    with term.reading() as tx:
        held = workers.by_node(tx, {node_id for _, _, node_id in unpinned})
        homes = workers.nodes(tx, {applied.worker_id for applied, _, _ in unpinned if applied.worker_id})
    written = []
    for applied, service, node_id in unpinned:
        with suppress(EngineRefused):  # whoever changed it meanwhile is looked at again
            worker_id = held.get(node_id, applied.worker_id)
            home = node_id if node_id in held else homes.get(worker_id or FIRST)
            if worker_id and home:
                orders.pin(term, service, home, {DEPLOYMENT_LABEL: str(applied.deployment_id)})
                written.append((applied, worker_id))
    with term.recording() as tx:
        for applied, worker_id in written:
            deployments.set_worker(tx, applied.deployment_id, worker_id)
        told = [service_event(term, EventKind.SERVICE_PINNED_ANEW, applied, "") for applied, _ in written]
        return events.append(tx, *told)
