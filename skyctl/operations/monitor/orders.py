"""Orders to the engine that change a service for a while: what its owner has is kept before, and given back after."""

from collections.abc import Collection, Iterable, Mapping

from skyctl.domain.engine import EngineService, ServiceDocument
from skyctl.domain.errors import EngineConflict, EngineRefused
from skyctl.operations.shared import owners
from skyctl.operations.shared.leadership import Term
from skyctl.rules import local_state
from skyctl.rules import owner_specs as rules
from skyctl.rules.local_state import Way
from skyctl.store import owner_specs
from skyctl.store.owner_specs import OwnerSpec


def pin(term: Term, service: EngineService, node_id: str, labels: Mapping[str, str]) -> None:
    """Pin a service to a node. Raises LostLead, EngineConflict, EngineRefused, EngineUnavailable."""
    _keep(term, service, [])
    term.engine().move(service.id, service.version, node_id, labels, _order(service))


def exclude(term: Term, service: EngineService, node_ids: Collection[str]) -> None:
    """Keep a service off nodes. Raises LostLead, EngineConflict, EngineRefused, EngineUnavailable."""
    spec = _keep(term, service, node_ids).spec
    for node_id in node_ids:
        spec = rules.excluding(spec, node_id, _order(service))
    term.engine().write(service.id, service.version, spec)


def include(term: Term, service: EngineService, node_id: str) -> None:
    """Keep a service off a node no longer. Raises LostLead, EngineConflict, EngineRefused, EngineUnavailable."""
    document = _read(term, service)
    term.engine().write(service.id, service.version, rules.including(document.spec, node_id))


def give_back(term: Term, changed: Iterable[OwnerSpec], moving: Collection[str | None]) -> bool:
    """Give back what moves changed of services, but of those that are moving; tell whether another one is to be given
    back. What is refused is left as it is."""
    left = [kept for kept in changed if kept.swarm_service_id not in moving and not _give_back(term, kept)]
    return bool(left)


def _give_back(term: Term, kept: OwnerSpec) -> bool:
    service_id = kept.swarm_service_id
    document = term.read(service_id)
    if document is not None:
        spec = rules.given_back(document.spec, kept.spec, kept.excluded)
        try:
            if spec != document.spec:
                term.engine().write(service_id, document.version, spec)
        except EngineConflict:
            return False
        except EngineRefused:  # it is tried again with the next look at everything
            return True
    with term.writing() as tx:
        if document is None:
            owner_specs.forget(tx, service_id)
        else:
            if rules.is_changed(document.spec, kept.spec, kept.excluded):  # his way back is to what he had before that
                owner_specs.keep(tx, OwnerSpec(service_id, spec, kept.spec, ()))
            owner_specs.note_given_back(tx, service_id)
    return True


def forget_gone(term: Term) -> None:
    """Forget what is kept of services that the engine no longer has."""
    with term.reading() as tx:
        kept = owner_specs.ids(tx)
    gone = kept - set(term.observe(kept).services) if kept else set()
    if gone:
        with term.writing() as tx:
            for service_id in gone:
                owner_specs.forget(tx, service_id)


def _order(service: EngineService) -> str:
    """Whether the new container of a service that is moved is started first."""
    way = local_state.moving(service, moves_local_data=True).way
    return rules.STOP_FIRST if way is Way.STOP_FIRST else rules.START_FIRST


def _keep(term: Term, service: EngineService, excluded: Collection[str]) -> ServiceDocument:
    """Keep what a service's owner has, unless that is kept already, before it is changed by us."""
    document = _read(term, service)
    with term.writing() as tx:
        owners.keep(tx, service.id, document, excluded)
    return document


def _read(term: Term, service: EngineService) -> ServiceDocument:
    document = term.read(service.id)
    if document is None or document.version != service.version:
        raise EngineConflict("the service was changed, or removed, at the same moment")
    return document
