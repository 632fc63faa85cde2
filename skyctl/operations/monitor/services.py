"""Bring services in line with what the engine shows of each, and finish what an interrupted command left to be done."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Event
from skyctl.domain.engine import EngineNode, Observation
from skyctl.domain.errors import EngineRefused, Superseded
from skyctl.domain.event_details import ServiceRef
from skyctl.domain.events import EventKind
from skyctl.domain.states import DeploymentStatus, ServiceStatus
from skyctl.domain.workloads import Deployment, Service
from skyctl.operations.monitor import downtimes, endings, orders, pins, second_choices
from skyctl.operations.monitor.service_events import service_event
from skyctl.operations.shared import apply_deployment
from skyctl.operations.shared.leadership import Term
from skyctl.rules import node_claims as node_rules
from skyctl.rules import owner_specs
from skyctl.rules import services as rules
from skyctl.rules.services import DeploymentVerdict
from skyctl.store import db, deployments, drains, events, node_claims, panel_moves, services, workers
from skyctl.store.services import AppliedDeployment

POLL_SECONDS = 0.5
# A command that wrote a deployment down and has not applied it by then was interrupted.
INTERRUPTED = timedelta(seconds=30)
PAGE = 2_000
MOST_BY_ID = 100
MOST_AT_ONCE = 200
FIRST = UUID(int=0)
STATUSES = {
    DeploymentStatus.DEPLOYING: ServiceStatus.DEPLOYING,
    DeploymentStatus.RUNNING: ServiceStatus.RUNNING,
    DeploymentStatus.STOPPED: ServiceStatus.STOPPED,
    DeploymentStatus.FAILED: ServiceStatus.FAILED,
}


class PendingEngineWork(NamedTuple):
    """The work beside comparing: services whose deployment was never applied; removed services that the engine may have
    all the same, each with the deployment that may have created it; services that a drain stops; nodes that are to take
    nothing new, or something again, each with its worker; those of the first that a drain may have emptied before."""

    apply_pending: Sequence[Service]
    leftovers: Sequence[tuple[Service, UUID]]
    to_stop: Sequence[Service]
    to_pause: Mapping[str, UUID]
    to_resume: Mapping[str, UUID]
    left_by_drains: Mapping[str, UUID]


def reconcile_services(term: Term, *, all_of_them: bool) -> tuple[list[Event], float | None]:
    """Bring services in line with what the engine shows: all of them, or only those whose containers are on their way.

    Return the events, and in how many seconds to reconcile again: at once where a node was closed, for which drains
    have waited. Raises LostLead, DatabaseUnavailable, EngineUnavailable.
    """
    if all_of_them:
        _undo_panel_moves(term)
    pending_work = _pending_engine_work(term)
    reconciled = _do(term, pending_work) if any(pending_work) else []
    is_any_closed = _set_nodes(term, pending_work) if pending_work.to_pause or pending_work.to_resume else False
    everything: Observation | None = None
    after, unsettled = FIRST, False
    while True:
        with term.reading() as tx:
            page, now = services.applied(tx, after, PAGE, unsettled=not all_of_them), db.now(tx)
        if not page:
            break
        ids = {applied.swarm_service_id for applied in page}
        if len(page) == PAGE or len(ids) > MOST_BY_ID or everything:
            everything = observation = everything or term.observe()
        else:
            observation = term.observe(ids)
        _end_surplus(term, page, observation)
        pins.leave_to_the_swarm(term, page, observation)
        reconciled += pins.pin_anew(term, page, observation) + pins.pin_the_last(term, page, observation)
        reconciled += downtimes.note(term, page, observation) + endings.note(term, page, observation, now)
        changed, chosen = second_choices.choose(term, page, observation, now)
        reconciled += chosen
        left = [applied for applied in page if applied.deployment_id not in changed]
        verdicts = [(applied, _find(term, applied, observation, now)) for applied in left]
        reconciled += _write(term, [(applied, verdict) for applied, verdict in verdicts if _is_news(applied, verdict)])
        is_any_deploying = any(verdict.status is DeploymentStatus.DEPLOYING for _, verdict in verdicts)
        unsettled = unsettled or bool(changed) or is_any_deploying
        after = page[-1].deployment_id
        if len(page) < PAGE:
            break
    if is_any_closed:
        return reconciled, 0.0
    return reconciled, POLL_SECONDS if unsettled or pending_work.apply_pending or pending_work.to_stop else None


def _undo_panel_moves(term: Term) -> None:
    """Undo moves that the panel made in its tables alone: the engine has what it had, and nobody would move that."""
    with term.reading() as tx:
        is_any = bool(panel_moves.found(tx))
    if is_any:
        with term.writing() as tx:
            for move in panel_moves.found(tx):
                panel_moves.undo(tx, move)


def _end_surplus(term: Term, page: Iterable[AppliedDeployment], observation: Observation) -> None:
    """Have the swarm look again at services of which more containers run than are wanted, by a change that means
    nothing."""
    for applied in page:
        service = observation.services.get(applied.swarm_service_id)
        if service is None or not rules.is_ours(service.labels, applied.service_id):
            continue
        if rules.has_surplus(service) and service.node_id:
            again = {owner_specs.LOOK_AGAIN_LABEL: str(service.version)}
            with suppress(EngineRefused):  # whoever changed it meanwhile has done the same
                orders.pin(term, service, service.node_id, again)


def _find(term: Term, applied: AppliedDeployment, observation: Observation, now: datetime) -> DeploymentVerdict:
    service = observation.services.get(applied.swarm_service_id)
    if service and not rules.is_ours(service.labels, applied.service_id):
        # without a label it may be about to be adopted: nothing is concluded from it, as nothing is ordered
        labelled = rules.SERVICE_LABEL in service.labels
        verdict = (DeploymentStatus.FAILED, rules.NOT_OURS) if labelled else (applied.status, applied.log)
        return DeploymentVerdict(*verdict)
    is_untried = endings.is_untried(applied, service, now)
    deployment_id, created_as = str(applied.deployment_id), applied.created_as
    is_late = second_choices.is_late(term, applied, service, now)
    return rules.assess_deployment(
        applied.status, deployment_id, created_as, service, is_untried=is_untried, is_late=is_late
    )


def _is_news(applied: AppliedDeployment, verdict: DeploymentVerdict) -> bool:
    is_same_container = verdict.container_id in (None, applied.container_id)
    is_same = verdict.status is applied.status and verdict.log == applied.log and is_same_container
    return not is_same or verdict.node_id is not None


def _pending_engine_work(term: Term) -> PendingEngineWork:
    with term.reading() as tx:
        apply_pending = services.apply_pending(tx, INTERRUPTED)
        nodes = workers.nodes(tx, {service.current.worker_id or FIRST for service in apply_pending if service.current})
        return PendingEngineWork(
            [
                service
                for service in apply_pending
                if service.current and (service.spec.replicas > 1 or service.current.worker_id in nodes)
            ],
            services.leftovers(tx, INTERRUPTED),
            _left_at_deadline(tx),
            drains.nodes_to_pause(tx),
            drains.nodes_to_resume(tx),
            drains.nodes_left_by_drains(tx),
        )


def _left_at_deadline(tx: db.Transaction) -> list[Service]:
    """Return the services that are to be stopped, since a drain's deadline has passed and its administrator said so."""
    forced = [drained.worker_id for drained in drains.ending(tx, timedelta()) if drained.force]
    return services.on_workers(tx, forced) if forced else []


def _do(term: Term, pending_work: PendingEngineWork) -> list[Event]:
    """Do the pending work on services. What the engine refuses of one service is noted with it, and keeps no other
    from its turn."""
    for service in pending_work.apply_pending:
        if service.current:
            with suppress(EngineRefused, Superseded):
                apply_deployment.apply_deployment(term.context, service, service.current.id, term.recording)
    done = []
    for service, deployment_id in pending_work.leftovers:
        with suppress(EngineRefused):
            apply_deployment.remove_leftover(term.context, service, deployment_id, term.recording)
            done += _note_removed(term, service)
    return done + [event for service in pending_work.to_stop for event in _stop(term, service)]


def _note_removed(term: Term, service: Service) -> list[Event]:
    """Note that a service is removed that the panel marked as deleted: unlike skyctl it leaves a current deployment."""
    with term.recording() as tx:
        if not deployments.leave(tx, service.id):
            return []
        details = ServiceRef(serviceId=str(service.id), serviceName=service.spec.name)
        where = (service.current.worker_id, service.current.worker_name) if service.current else (None, None)
        kind, reason = EventKind.SERVICE_REMOVED, service.spec.name
        return events.append(tx, Event(kind, *where, "panel", reason=reason, details=details, term=term.number))


def _stop(term: Term, service: Service) -> list[Event]:
    """Stop a container that was left at a drain's deadline, if it is still to be stopped, and note that."""
    current = service.current
    with term.writing() as tx:
        if current is None or not _is_to_be_stopped(tx, service.id, current.id):
            return []
    known = term.observe([current.swarm_service_id]).services if current.swarm_service_id else {}
    is_foreign = any(not rules.is_ours(found.labels, service.id) for found in known.values())
    if known and not is_foreign:
        with suppress(EngineRefused):  # the next comparison finds what it runs
            term.engine().stop(current.swarm_service_id or "")
    with term.recording() as tx:
        now = services.get(tx, service.id, lock=True)
        if now is None or now.current is None:
            return []
        if now.current.id != current.id:  # it was deployed again at the same moment, and may have been stopped at once
            deployments.set_apply_pending(tx, now.current.id)
            return []
        return events.append(tx, _note_stopped(tx, term, service, current, is_foreign=is_foreign))


def _is_to_be_stopped(tx: db.Transaction, service_id: UUID, deployment_id: UUID) -> bool:
    return any(
        service.id == service_id and service.current and service.current.id == deployment_id
        for service in _left_at_deadline(tx)
    )


def _note_stopped(tx: db.Transaction, term: Term, service: Service, current: Deployment, *, is_foreign: bool) -> Event:
    status, log = (DeploymentStatus.FAILED, rules.NOT_OURS) if is_foreign else (DeploymentStatus.STOPPED, "")
    deployments.set_status(tx, current.id, status, log=log)
    services.set_status(tx, service.id, STATUSES[status])
    name, details = service.spec.name, ServiceRef(serviceId=str(service.id), serviceName=service.spec.name)
    where, reason = (current.worker_id, current.worker_name), name + (f": {log}" if log else "")
    kind = EventKind[f"SERVICE_{status.name}"]
    return Event(kind, *where, "monitor", reason=reason, details=details, term=term.number)


def _set_nodes(term: Term, pending_work: PendingEngineWork) -> bool:
    """Make nodes take nothing new that take some, and nodes take some again that took none because of a drain. Return
    whether any takes nothing new from now on.

    What somebody else has set stays. A pause is noted before it is set, so that none is forgotten.
    """
    nodes = term.observe(()).nodes
    with term.reading() as tx:
        allowed = node_claims.allowed(tx, {*pending_work.to_pause.values(), *pending_work.to_resume.values()})

    def may_set(node_id: str, worker_id: UUID) -> bool:
        return node_id in nodes and node_rules.may_set_availability(nodes[node_id], worker_id, allowed)

    to_pause = {
        node_id: worker_id
        for node_id, worker_id in pending_work.to_pause.items()
        if _availability(nodes, node_id) in _before_pause(pending_work, node_id) and may_set(node_id, worker_id)
    }
    if to_pause:
        _note_nodes(term, list(to_pause.values()), [])
    for node_id in to_pause:
        _set_availability(term, node_id, "pause")
    for node_id, worker_id in pending_work.to_resume.items():
        if _availability(nodes, node_id) in ("pause", "drain") and may_set(node_id, worker_id):
            _set_availability(term, node_id, "active")
    if pending_work.to_resume:
        _note_nodes(term, [], list(pending_work.to_resume.values()))
    return bool(to_pause)


def _before_pause(pending_work: PendingEngineWork, node_id: str) -> tuple[str, ...]:
    """Return in which states a node is paused: at the end of its drain we have emptied it of what runs on every
    node."""
    return ("active", "drain") if node_id in pending_work.left_by_drains else ("active",)


def _availability(nodes: Mapping[str, EngineNode], node_id: str) -> str:
    return nodes[node_id].availability if node_id in nodes else ""


def _set_availability(term: Term, node_id: str, availability: str) -> None:
    with suppress(EngineRefused):  # the node has left the swarm
        term.engine().set_availability(node_id, availability)


def _note_nodes(term: Term, paused: Sequence[UUID], resumed: Sequence[UUID]) -> None:
    with term.writing() as tx:
        drains.note_nodes(tx, paused, resumed)


def _write(term: Term, news: Sequence[tuple[AppliedDeployment, DeploymentVerdict]]) -> list[Event]:
    """Write down what is news, in transactions that are short however much it is."""
    written: list[Event] = []
    for first in range(0, len(news), MOST_AT_ONCE):
        some = news[first : first + MOST_AT_ONCE]
        with term.recording() as tx:
            held = workers.by_node(tx, {verdict.node_id for _, verdict in some if verdict.node_id})
            noted = [_note(tx, term, applied, verdict, held.get(verdict.node_id or "")) for applied, verdict in some]
            written += events.append(tx, *(event for event in noted if event))
    return written


def _note(
    tx: db.Transaction, term: Term, applied: AppliedDeployment, verdict: DeploymentVerdict, worker_id: UUID | None
) -> Event | None:
    """Write down the state of a deployment, where that is news and it is still the service's current one."""
    by_hand = verdict.status is DeploymentStatus.RUNNING and worker_id is not None and worker_id != applied.worker_id
    if not by_hand and not _is_news(applied, verdict._replace(node_id=None)):
        return None
    now = services.get(tx, applied.service_id, lock=True)
    if now is None or now.current is None:
        return None
    if now.current.id != applied.deployment_id or now.current.status is not applied.status:
        return None
    deployments.set_status(
        tx, applied.deployment_id, verdict.status, log=verdict.log, container_id=verdict.container_id
    )
    if verdict.status is DeploymentStatus.ROLLED_BACK:
        services.restore(tx, applied.service_id, but=applied.deployment_id)
    else:
        services.set_status(tx, applied.service_id, STATUSES[verdict.status])
    if by_hand and worker_id:
        deployments.set_worker(tx, applied.deployment_id, worker_id)
    if verdict.status is DeploymentStatus.RUNNING:
        deployments.stop_others(tx, applied.service_id, but=applied.deployment_id)
    return _event(term, applied, verdict, by_hand=by_hand)


def _event(term: Term, applied: AppliedDeployment, verdict: DeploymentVerdict, *, by_hand: bool) -> Event | None:
    if verdict.status is applied.status and not by_hand:
        return None
    kind = EventKind.SERVICE_MOVED_BY_HAND if by_hand else EventKind[f"SERVICE_{verdict.status.name}"]
    return service_event(term, kind, applied, verdict.log)
