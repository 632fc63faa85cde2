"""Stories of moving containers: when many workers fail at once it is held, until somebody lets it go on."""

from skyctl.model import Actor, Event, MassFailure
from skyctl.operations.world import World
from skyctl.store import events, health


def resume(world: World, actor: Actor) -> list[MassFailure]:
    """Let containers be moved automatically again off all workers that fell silent at once; the mass failures that are lifted."""
    with world.db.transaction() as tx:
        events.lock(tx)
        standing = health.open_mass_failures(tx)
        health.lift_mass_failures(tx, [failure.id for failure in standing], actor.name)
        for failure in standing:
            details = {"massFailureId": failure.id, "region": failure.region, "silent": failure.silent}
            reason = f"{failure.silent} workers fell silent at once, and are dealt with as if one by one"
            events.record(
                tx, Event("migrations_resumed", None, None, actor.name, reason=reason, details=details), actor
            )
        return standing
