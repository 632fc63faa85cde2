"""Keep what a service's owner has of it, before it is changed by us."""

from collections.abc import Collection

from skyctl.domain.engine import ServiceDocument
from skyctl.rules import owner_specs as rules
from skyctl.store import db, owner_specs
from skyctl.store.owner_specs import OwnerSpec


def keep(tx: db.Transaction, service_id: str, document: ServiceDocument, excluded: Collection[str] = ()) -> None:
    """Keep what an owner has of a service, unless that is kept already: as it is before our first change since his
    last, and his version before that. It is about to be kept off the nodes `excluded`, too."""
    known = owner_specs.get(tx, service_id)
    ours = known.excluded if known else ()
    if known is None:
        owners = OwnerSpec(service_id, document.spec, document.former, excluded)
    elif rules.is_changed(document.spec, known.spec, ours):
        spec = rules.released(document.spec, known.spec, ours)
        former = document.former and rules.released(document.former, known.spec, ours)
        still = set(ours) & set(rules.excluded(document.spec))  # of a move that ended a moment ago
        owners = OwnerSpec(service_id, spec, former, {*still, *excluded})
    else:
        owners = known._replace(excluded={*ours, *excluded})
    owner_specs.keep(tx, owners)
