"""What the doctor says of workers without a node of the swarm: which, and why."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from skyctl.domain.checks import Check, CheckState
from skyctl.domain.engine import EngineNode, Place
from skyctl.domain.errors import EngineRefused, EngineUnavailable, SkyctlError
from skyctl.operations.shared.context import DoctorInputs
from skyctl.rules import node_matches as rules
from skyctl.store import node_matches

NAME = "workers' nodes"
NAMED = 5
NOT_LOOKED = "no monitor has looked yet"
SAYS_NONE = "its agent says that its host is in no swarm"
REMEDY = "let the host join, or see `docker node ls`; nothing is placed there. Which node a host is: docs/operations.md"


def examine(inputs: DoctorInputs) -> Check:
    """Name the workers that are heard and have no confirmed node."""
    try:
        with inputs.database() as database, database.transaction() as tx:
            places = node_matches.places(tx)
    except SkyctlError:
        again = "mend the database first, then run `skyctl doctor` again"
        return Check(NAME, CheckState.WARNING, "not known: the database does not answer", again)
    without = [place for place in places if place.is_heard and not place.is_confirmed]
    if not without:
        return Check(NAME, CheckState.OK, "each worker that was heard has one")
    try:
        nodes = inputs.engine().observe(()).nodes
    except (EngineRefused, EngineUnavailable) as error:
        found = f"{len(without)} without one; why is not known: {error.message}"
        return Check(NAME, CheckState.WARNING, found, "mend the check `docker` first")
    reasons = _reasons(places, without, nodes)
    named = [f"{place.name} ({reasons[place.worker_id]})" for place in without[:NAMED]]
    more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
    return Check(NAME, CheckState.WARNING, f"without one: {', '.join(named)}{more}", REMEDY)


def _reasons(places: Sequence[Place], without: Sequence[Place], nodes: Mapping[str, EngineNode]) -> dict[UUID, str]:
    matched = rules.match(places, nodes)
    reasons = {place.worker_id: place.trouble or (NOT_LOOKED if place.node_ids else SAYS_NONE) for place in without}
    return reasons | {worker_id: match.trouble or NOT_LOOKED for worker_id, match in matched.items()}
