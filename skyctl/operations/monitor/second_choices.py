"""Deployments that do not come to run: one for which the engine has no place on its worker goes to the next that fits;
one that is late has failed, and what ran before it runs again."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID, uuid4

from skyctl.domain.cluster import Event
from skyctl.domain.engine import EngineService, Observation
from skyctl.domain.errors import EngineConflict, EngineRefused, Superseded
from skyctl.domain.events import EventKind
from skyctl.domain.states import DeploymentStatus
from skyctl.domain.workloads import Placement, Refusal, Service
from skyctl.operations.monitor.service_events import service_event
from skyctl.operations.shared import apply_deployment, candidates
from skyctl.operations.shared.candidates import Ground
from skyctl.operations.shared.leadership import Term
from skyctl.rules import services as rules
from skyctl.rules.migrations import PATIENCE
from skyctl.rules.tasks import trouble
from skyctl.store import db, deployments, events, services, workers
from skyctl.store.services import AppliedDeployment

# The engine says at once that no node fits; a moment later that is no accident, and after a while there is no hope.
MOST_AT_ONCE = 10
VERDICT, HOPELESS = timedelta(seconds=5), timedelta(seconds=30)


def is_late(term: Term, applied: AppliedDeployment, service: EngineService | None, now: datetime) -> bool:
    """Tell whether a deployment that has never run has had its time: all of it, or enough for one that fits nowhere.
    One that ran and does not any more is down, not late."""
    if applied.applied_at is None or service is None or applied.status is DeploymentStatus.RUNNING:
        return False
    took, timeout = now - applied.applied_at, term.context.migrations.deployment_timeout
    if rules.no_place(service, applied.created_as):
        return took > min(HOPELESS, timeout)
    return took > (PATIENCE * timeout if rules.goes_on(service) else timeout)


def choose(
    term: Term, page: Iterable[AppliedDeployment], seen: Observation, now: datetime
) -> tuple[set[UUID], list[Event]]:
    """Send deployments to other workers, or let the former ones run again, where that is called for.

    Return those of which the engine shows something else by now, and the events.
    """
    changed: set[UUID] = set()
    told: list[Event] = []
    everything = cache(term.observe)  # asked for once, where anything calls for it
    for applied in page:
        service = seen.services.get(applied.swarm_service_id)
        if applied.status is not DeploymentStatus.DEPLOYING or applied.applied_at is None or service is None:
            continue
        if not rules.is_ours(service.labels, applied.service_id) or not _is_waiting(service, applied):
            continue
        if len(changed) >= MOST_AT_ONCE:  # the others have their turn with the next look
            break
        words = rules.no_place(service, applied.created_as)
        is_over = is_late(term, applied, service, now)
        if not is_over and not (words and now - applied.applied_at > VERDICT):
            continue
        with suppress(EngineConflict, EngineRefused):  # whoever changed it meanwhile is looked at again
            made = _redirect(term, applied, service, words, everything) if words and applied.worker_id else []
            made = made or (_go_back(term, applied, service, words) if is_over else [])
            changed |= {applied.deployment_id} if made else set()
            told += made
    return changed, told


def _is_waiting(service: EngineService, applied: AppliedDeployment) -> bool:
    verdict = rules.assess_deployment(applied.status, str(applied.deployment_id), applied.created_as, service)
    return verdict.status is DeploymentStatus.DEPLOYING


def _redirect(
    term: Term, applied: AppliedDeployment, service: EngineService, words: str, everything: Callable[[], Observation]
) -> list[Event]:
    """Send a deployment to the next worker that fits; nothing where there is none."""
    with term.reading() as tx:
        known = services.get(tx, applied.service_id)
    if known is None:
        return []
    ground = candidates.ground(everything(), but=known)
    with term.reading() as tx:
        if isinstance(_place(tx, term, applied, known, ground), Refusal):
            return []
    _restore(term, applied, service)
    with term.recording() as tx:
        now = services.get(tx, applied.service_id, lock=True)
        if now is None or not _is_still(now, applied):
            return []
        place = _place(tx, term, applied, now, ground)
        if isinstance(place, Refusal):
            return []
        deployments.redirect(tx, applied.deployment_id, place.worker_id)
        name = workers.names_of(tx)[place.worker_id]
        reason = f"{applied.worker_name} does not take it ({words}): it goes to {name}, {place.reason}"
        told = events.append(tx, service_event(term, EventKind.SERVICE_REDIRECTED, applied, reason))
    with suppress(EngineRefused, Superseded):
        apply_deployment.apply_deployment(term.context, now, applied.deployment_id, term.recording)
    return told


def _place(
    tx: db.Transaction, term: Term, applied: AppliedDeployment, service: Service, ground: Ground
) -> Placement | Refusal:
    tried = {applied.worker_id, *deployments.no_place_on(tx, applied.deployment_id)}
    others = [worker_id for worker_id in workers.names_of(tx) if worker_id not in tried]
    demand = candidates.demand(uuid4(), service.spec)
    return candidates.plan(tx, [demand], ground, term.context.health, only=others)[0]


def _go_back(term: Term, applied: AppliedDeployment, service: EngineService, words: str) -> list[Event]:
    """Let the former deployment run again, and note why; nothing where there is none."""
    log = words or trouble(service, service.node_id) or rules.NOT_IN_TIME
    if not _restore(term, applied, service):
        return []
    with term.recording() as tx:
        now = services.get(tx, applied.service_id, lock=True)
        if now is None or not _is_still(now, applied):
            return []
        deployments.set_status(tx, applied.deployment_id, DeploymentStatus.ROLLED_BACK, log=log)
        services.restore(tx, applied.service_id, but=applied.deployment_id)
        return events.append(tx, service_event(term, EventKind.SERVICE_ROLLED_BACK, applied, log))


def _restore(term: Term, applied: AppliedDeployment, service: EngineService) -> bool:
    """Have the engine run what it ran before this deployment, whose containers still run where they can; tell whether
    there is anything."""
    with term.reading() as tx:
        if not services.has_former(tx, applied.service_id, but=applied.deployment_id):
            return False
    document = term.engine().read(service.id)
    if document is None or document.former is None:
        return False
    if document.version != service.version:
        raise EngineConflict("the service was changed at the same moment")
    term.engine().write(service.id, document.version, document.former)
    return True


def _is_still(service: Service, applied: AppliedDeployment) -> bool:
    current = service.current
    return current is not None and (current.id, current.status) == (applied.deployment_id, applied.status)
