"""Mass failure: many workers that fall silent at once, most likely by a common cause."""

from skyctl.domain.cluster import HealthPolicy
from skyctl.domain.fleets import Silence


def is_mass_failure(silence: Silence, policy: HealthPolicy) -> bool:
    """Tell whether enough workers failed for a common cause to be likely: moving all containers at once would
    be a stampede."""
    return silence.silent >= policy.mass_workers and silence.silent >= policy.mass_share * silence.schedulable
