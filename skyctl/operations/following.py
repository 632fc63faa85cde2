"""The leading monitor's story of services: what the engine says of each, and what an interrupted command left to be done."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from skyctl.engine import EngineNode
from skyctl.errors import EngineRefused
from skyctl.model import Event, Lease
from skyctl.operations.leadership import TTL
from skyctl.operations.world import Engine, World
from skyctl.rules import services as rules
from skyctl.rules.services import Finding
from skyctl.store import db, drains, events, migrations, monitors, services, workers
from skyctl.workload import Deployment, DeploymentStatus, Service, ServiceStatus

POLL_SECONDS = 0.5
# A command that wrote a deployment down and has not told the engine of it by then was interrupted.
INTERRUPTED = timedelta(seconds=30)
MOST_BY_ID = 100
STATUSES = {
    DeploymentStatus.DEPLOYING: ServiceStatus.DEPLOYING,
    DeploymentStatus.RUNNING: ServiceStatus.RUNNING,
    DeploymentStatus.STOPPED: ServiceStatus.STOPPED,
    DeploymentStatus.FAILED: ServiceStatus.FAILED,
}


class Scene(NamedTuple):
    """What there is to do: the services that the engine is asked about, those that it was never told of, those whose drain says
    that they are to be stopped, and the nodes that are to take nothing new, or something again."""

    followed: Sequence[tuple[Service, Deployment]]
    untold: Sequence[tuple[Service, Deployment, str]]
    to_stop: Sequence[tuple[Service, Deployment]]
    to_pause: dict[str, UUID]
    to_resume: dict[str, UUID]


class Seen(NamedTuple):
    """What the engine said and did: of each service what has become of its deployment, the ids of those that were deployed, those
    that were stopped, and whose nodes were changed."""

    findings: Sequence[tuple[Service, Deployment, Finding]]
    deployed: Sequence[tuple[Service, Deployment, Finding, str]]
    paused: Sequence[UUID]
    resumed: Sequence[UUID]


def follow(world: World, lease: Lease) -> tuple[list[Event], float | None]:
    """Bring the services in line with what the engine says; the events, and in how many seconds to look again.

    Raises LostLead, DatabaseUnavailable, EngineUnavailable.
    """
    scene = _look(world)
    if not any(scene):
        return [], None
    engine = world.engine()
    ids = {current.swarm_service_id for _, current in scene.followed if current.swarm_service_id}
    seen = engine.observe(ids if len(ids) <= MOST_BY_ID else None)
    findings = [
        (
            service,
            current,
            rules.follow(current.status, str(current.id), seen.services.get(current.swarm_service_id or "")),
        )
        for service, current in scene.followed
    ]
    for _, current in scene.to_stop:
        engine.stop(current.swarm_service_id or "")
    findings += [(service, current, Finding(DeploymentStatus.STOPPED)) for service, current in scene.to_stop]
    told = Seen(
        findings, [_deploy(engine, *each) for each in scene.untold],
        _set_nodes(engine, seen.nodes, scene.to_pause, "active", "pause"),
        _set_nodes(engine, seen.nodes, scene.to_resume, "pause", "active"),
    )  # fmt: skip
    written = _write(world, lease, told)
    unsettled = any(status is DeploymentStatus.DEPLOYING for _, _, (status, *_) in findings)
    return written, POLL_SECONDS if unsettled or scene.untold or scene.to_stop else None


def _look(world: World) -> Scene:
    with world.db.transaction() as tx:
        now = db.now(tx)
        under_way = {each.service_id for each in migrations.work(tx, 0).under_way}
        mine = [
            (service, service.current)
            for service in services.with_engine_service(tx)
            if service.current and service.id not in under_way
        ]
        nodes = workers.nodes(tx, {current.worker_id for _, current in mine if current.worker_id})
        untold = [
            (service, current, nodes[current.worker_id])
            for service, current in mine
            if current.swarm_service_id is None
            and current.worker_id in nodes
            and now - current.created_at > INTERRUPTED
        ]
        forced = [each.worker_id for each in drains.ending(tx) if each.force]
        to_stop = [(each, each.current) for each in services.on_workers(tx, forced) if each.current] if forced else []
        followed = [each for each in mine if each[1].swarm_service_id and each not in to_stop]
        return Scene(followed, untold, to_stop, drains.nodes_to_pause(tx), drains.nodes_to_resume(tx))


def _deploy(
    engine: Engine, service: Service, current: Deployment, node_id: str
) -> tuple[Service, Deployment, Finding, str]:
    """Tell the engine of a service whose command was interrupted before it did."""
    try:
        swarm_service_id = engine.deploy(rules.engine_spec(service, current.id, node_id))
    except EngineRefused as error:
        return service, current, Finding(DeploymentStatus.FAILED, error.message), ""
    return service, current, Finding(DeploymentStatus.DEPLOYING), swarm_service_id


def _set_nodes(
    engine: Engine, nodes: Mapping[str, EngineNode], wanted: dict[str, UUID], seen: str, availability: str
) -> list[UUID]:
    """Let nodes that are as they were left take nothing new, or something again; whose they are. What somebody else set stays."""
    changed = []
    for node_id, worker_id in wanted.items():
        node = nodes.get(node_id)
        if node and node.availability == seen:
            engine.set_availability(node_id, availability)
        if node is None or node.availability in (seen, availability):
            changed.append(worker_id)
    return changed


def _write(world: World, lease: Lease, seen: Seen) -> list[Event]:
    with world.db.transaction() as tx:
        monitors.hold(tx, lease, TTL)
        events.lock(tx)
        told = [_note(tx, lease, *each) for each in seen.findings]
        told += [_note(tx, lease, *each) for each in seen.deployed]
        drains.note_nodes(tx, seen.paused, seen.resumed)
        return events.append(tx, *(event for event in told if event))


def _note(
    tx: db.Transaction, lease: Lease, service: Service, seen: Deployment, finding: Finding, swarm_service_id: str = ""
) -> Event | None:  # fmt: skip
    """Write down what has become of a deployment, where that is new and it is still the service's current one."""
    moved_to = None
    if finding.node_id:
        worker_id = workers.by_node(tx, [finding.node_id]).get(finding.node_id)
        moved_to = worker_id if worker_id != seen.worker_id else None
    same = (
        finding.status is seen.status and finding.log == seen.log and finding.container_id in (None, seen.container_id)
    )
    if same and not moved_to and not swarm_service_id:
        return None
    now = services.get(tx, service.id, lock=True)
    if now is None or now.current is None or now.current.id != seen.id or now.current.status is not seen.status:
        return None
    services.set_deployment(
        tx, seen.id, finding.status, log=finding.log, container_id=finding.container_id,
        swarm_service_id=swarm_service_id or None,
    )  # fmt: skip
    if finding.status is DeploymentStatus.ROLLED_BACK:
        services.restore(tx, service.id, but=seen.id)
    else:
        services.set_status(tx, service.id, STATUSES[finding.status])
    if moved_to:
        services.set_worker(tx, seen.id, moved_to)
    if finding.status is DeploymentStatus.RUNNING:
        services.stop_others(tx, service.id, but=seen.id)
    return _event(lease, service, seen, finding, by_hand=moved_to is not None)


def _event(lease: Lease, service: Service, seen: Deployment, finding: Finding, *, by_hand: bool) -> Event | None:
    if finding.status is seen.status and not by_hand:
        return None
    kind = "service_moved_by_hand" if by_hand else f"service_{finding.status.value}"
    details = {
        "serviceId": str(service.id), "serviceName": service.spec.name, "organizationId": str(service.organization_id),
        "deploymentId": str(seen.id),
    }  # fmt: skip
    reason = service.spec.name + (f": {finding.log}" if finding.log else "")
    return Event(kind, seen.worker_id, seen.worker_name, "monitor", reason=reason, details=details, term=lease.term)
