"""Mass failure: so many workers that fall silent at once that the cause is hardly theirs."""

from skyctl.domain.cluster import HealthPolicy, Silence


def is_mass_failure(silence: Silence, policy: HealthPolicy) -> bool:
    """Whether so many fell silent that the cause is hardly theirs: moving all their containers at once would be a
    stampede."""
    return silence.silent >= policy.mass_workers and silence.silent >= policy.mass_share * silence.schedulable
