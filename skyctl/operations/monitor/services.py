"""The leading monitor's story of services: what the engine says of each, and what an interrupted command left to be
done."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event, Lease
from skyctl.domain.engine import EngineNode, Observation
from skyctl.domain.errors import EngineRefused
from skyctl.domain.events import EventKind, ServiceRef
from skyctl.domain.workloads import DeploymentStatus, Service, ServiceStatus
from skyctl.operations.shared import apply_deployment
from skyctl.operations.shared.context import Context, Engine
from skyctl.operations.shared.leadership import TTL
from skyctl.rules import services as rules
from skyctl.rules.services import Finding
from skyctl.store import db, drains, events, leases, services, workers
from skyctl.store.services import Followed

POLL_SECONDS = 0.5
# A command that wrote a deployment down and has not told the engine of it by then was interrupted.
INTERRUPTED = timedelta(seconds=30)
PAGE = 2_000
MOST_BY_ID = 100
FIRST = UUID(int=0)
STATUSES = {
    DeploymentStatus.DEPLOYING: ServiceStatus.DEPLOYING,
    DeploymentStatus.RUNNING: ServiceStatus.RUNNING,
    DeploymentStatus.STOPPED: ServiceStatus.STOPPED,
    DeploymentStatus.FAILED: ServiceStatus.FAILED,
}


class PendingEngineWork(NamedTuple):
    """What is to be done beside following: services that the engine was never told of, with their nodes; those that a
    drain wants stopped; nodes that are to take nothing new, or something again."""

    apply_pending: Sequence[tuple[Service, str]]
    to_stop: Sequence[Service]
    to_pause: Mapping[str, UUID]
    to_resume: Mapping[str, UUID]


def reconcile_services(context: Context, lease: Lease, *, all_of_them: bool) -> tuple[list[Event], float | None]:
    """Bring the services in line with what the engine says: all of them, or those alone whose containers are on their
    way.

    The events, and in how many seconds to look again. Raises LostLead, DatabaseUnavailable, EngineUnavailable.
    """
    pending_work = _pending_engine_work(context)
    done = _do(context, lease, pending_work) if any(pending_work) else []
    everything: Observation | None = None
    after, unsettled = FIRST, False
    while True:
        with context.db.transaction() as tx:
            page = services.followed(tx, after, PAGE, unsettled=not all_of_them)
        if not page:
            break
        ids = {each.swarm_service_id for each in page}
        if len(page) == PAGE or len(ids) > MOST_BY_ID or everything:
            everything = seen = everything or context.engine().observe()
        else:
            seen = context.engine().observe(ids)
        findings = [(each, _find(each, seen)) for each in page]
        done += _write(context, lease, [each for each in findings if _is_news(*each)])
        unsettled = unsettled or any(finding.status is DeploymentStatus.DEPLOYING for _, finding in findings)
        after = page[-1].deployment_id
    return done, POLL_SECONDS if unsettled or pending_work.apply_pending or pending_work.to_stop else None


def _find(each: Followed, seen: Observation) -> Finding:
    return rules.follow(each.status, str(each.deployment_id), each.created_as, seen.services.get(each.swarm_service_id))


def _is_news(each: Followed, found: Finding) -> bool:
    same = found.status is each.status and found.log == each.log and found.container_id in (None, each.container_id)
    return not same or found.node_id is not None


def _pending_engine_work(context: Context) -> PendingEngineWork:
    with context.db.transaction() as tx:
        apply_pending = services.apply_pending(tx, INTERRUPTED)
        nodes = workers.nodes(
            tx, {each.current.worker_id for each in apply_pending if each.current and each.current.worker_id}
        )
        placed = [(each, nodes.get(each.current.worker_id or FIRST)) for each in apply_pending if each.current]
        forced = [each.worker_id for each in drains.ending(tx) if each.force]
        to_stop = services.on_workers(tx, forced) if forced else []
        return PendingEngineWork(
            [(service, node_id) for service, node_id in placed if node_id],
            to_stop,
            drains.nodes_to_pause(tx),
            drains.nodes_to_resume(tx),
        )


def _do(context: Context, lease: Lease, pending_work: PendingEngineWork) -> list[Event]:
    """Do the chores; what the engine refuses of one is noted with that, and keeps nobody from the others."""
    engine = context.engine()
    for service, node_id in pending_work.apply_pending:
        try:
            apply_deployment.apply_deployment(
                context, service, service.current.id if service.current else FIRST, node_id
            )
        except EngineRefused:
            continue  # noted with the deployment
    for service in pending_work.to_stop:
        if service.current and service.current.swarm_service_id:
            _try(engine.stop, service.current.swarm_service_id)
    if pending_work.to_pause or pending_work.to_resume:
        _set_nodes(context, lease, engine, pending_work)
    if not pending_work.to_stop:
        return []
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        return events.append(tx, *[_stopped(tx, lease, service) for service in pending_work.to_stop])


def _set_nodes(context: Context, lease: Lease, engine: Engine, pending_work: PendingEngineWork) -> None:
    """Let nodes take nothing new that take some, and those take some again that took none because of a drain. What
    somebody else has set stays. A pause is noted before it is set, so that none is forgotten."""
    nodes = engine.observe(()).nodes
    to_pause = {
        node_id: of for node_id, of in pending_work.to_pause.items() if _availability(nodes, node_id) == "active"
    }
    if to_pause:
        _note_nodes(context, lease, list(to_pause.values()), [])
        for node_id in to_pause:
            _try(engine.set_availability, node_id, "pause")
    for node_id in pending_work.to_resume:
        if _availability(nodes, node_id) == "pause":
            _try(engine.set_availability, node_id, "active")
    if pending_work.to_resume:
        _note_nodes(context, lease, [], list(pending_work.to_resume.values()))


def _availability(nodes: Mapping[str, EngineNode], node_id: str) -> str:
    return nodes[node_id].availability if node_id in nodes else ""


def _try(order: Callable[..., None], *words: str) -> None:
    """Give an order that may be refused: the next look finds what has become of it."""
    with suppress(EngineRefused):
        order(*words)


def _note_nodes(context: Context, lease: Lease, paused: Sequence[UUID], resumed: Sequence[UUID]) -> None:
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        drains.note_nodes(tx, paused, resumed)


def _stopped(tx: db.Transaction, lease: Lease, service: Service) -> Event:
    """Note that a container that was left at a drain's deadline is stopped."""
    current = service.current
    if current:
        services.set_deployment(tx, current.id, DeploymentStatus.STOPPED)
    services.set_status(tx, service.id, ServiceStatus.STOPPED)
    details = ServiceRef(serviceId=str(service.id), serviceName=service.spec.name)
    where = (current.worker_id, current.worker_name) if current else (None, None)
    return Event(
        EventKind.SERVICE_STOPPED, *where, "monitor", reason=service.spec.name, details=details, term=lease.term
    )


def _write(context: Context, lease: Lease, news: Sequence[tuple[Followed, Finding]]) -> list[Event]:
    if not news:
        return []
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        on = workers.by_node(tx, {finding.node_id for _, finding in news if finding.node_id})
        told = [_note(tx, lease, each, finding, on.get(finding.node_id or "")) for each, finding in news]
        return events.append(tx, *(event for event in told if event))


def _note(tx: db.Transaction, lease: Lease, each: Followed, found: Finding, worker_id: UUID | None) -> Event | None:
    """Write down what has become of a deployment, where that is new and it is still the service's current one."""
    by_hand = found.status is DeploymentStatus.RUNNING and worker_id is not None and worker_id != each.worker_id
    if not by_hand and not _is_news(each, found._replace(node_id=None)):
        return None
    now = services.get(tx, each.service_id, lock=True)
    if (
        now is None
        or now.current is None
        or now.current.id != each.deployment_id
        or now.current.status is not each.status
    ):
        return None
    services.set_deployment(tx, each.deployment_id, found.status, log=found.log, container_id=found.container_id)
    if found.status is DeploymentStatus.ROLLED_BACK:
        services.restore(tx, each.service_id, but=each.deployment_id)
    else:
        services.set_status(tx, each.service_id, STATUSES[found.status])
    if by_hand and worker_id:
        services.set_worker(tx, each.deployment_id, worker_id)
    if found.status is DeploymentStatus.RUNNING:
        services.stop_others(tx, each.service_id, but=each.deployment_id)
    return _event(lease, each, found, by_hand=by_hand)


def _event(lease: Lease, each: Followed, found: Finding, *, by_hand: bool) -> Event | None:
    if found.status is each.status and not by_hand:
        return None
    kind = EventKind.SERVICE_MOVED_BY_HAND if by_hand else EventKind[f"SERVICE_{found.status.name}"]
    details = ServiceRef(
        serviceId=str(each.service_id),
        serviceName=each.service_name,
        organizationId=str(each.organization_id),
        deploymentId=str(each.deployment_id),
    )
    reason = each.service_name + (f": {found.log}" if found.log else "")
    return Event(kind, each.worker_id, each.worker_name, "monitor", reason=reason, details=details, term=lease.term)
