"""Mass failure: so many workers that fall silent at once that the cause is hardly theirs."""

from skyctl.domain.cluster import Limits, Silence


def is_mass_failure(silence: Silence, limits: Limits) -> bool:
    """Whether so many fell silent that the cause is hardly theirs: moving all their containers at once would be a
    stampede."""
    return silence.silent >= limits.mass_workers and silence.silent >= limits.mass_share * silence.schedulable
