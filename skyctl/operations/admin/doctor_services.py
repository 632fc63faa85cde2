"""What the doctor says of services: which keep ending, and which the engine would not go on starting."""

from skyctl.domain.checks import Check, CheckState
from skyctl.domain.errors import EngineRefused, EngineUnavailable, SchemaMissing, SkyctlError
from skyctl.operations.shared.context import DoctorInputs
from skyctl.rules import restarts
from skyctl.store import services

NAME = "services"
NAMED = 5
REMEDY = "see `skyctl services show` of each; those of an older skyctl go on with their next deployment or move"


def examine(inputs: DoctorInputs) -> Check:
    """Check that what is to run is started again, and does not keep ending."""
    try:
        with inputs.database() as database, database.transaction() as tx:
            managed, endings = services.engine_names(tx), services.endings(tx)
        seen = inputs.engine().observe(managed).services if managed else {}
    except (EngineRefused, EngineUnavailable):
        return _unknown("the engine does not answer", "mend the engine first, then run `skyctl doctor` again")
    except SchemaMissing:
        return _unknown("the schema is not complete", "run `skyctl db init`, then this again")
    except SkyctlError:
        return _unknown("the database does not answer", "mend the database first, then run `skyctl doctor` again")
    found = [f"{name} keeps ending: {reason}" for name, reason in endings]
    for engine_id, name in managed.items():
        if engine_id in seen and (why := restarts.gives_up(seen[engine_id].restarts)):
            found.append(f"{name}: {why}")
    if not found:
        return Check(NAME, CheckState.OK, f"{len(managed)} managed, none keeps ending, each is started again")
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return Check(NAME, CheckState.WARNING, "; ".join(found[:NAMED]) + more, REMEDY)


def _unknown(why: str, remedy: str) -> Check:
    return Check(NAME, CheckState.WARNING, f"not known: {why}", remedy)
