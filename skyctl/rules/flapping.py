"""Flapping: more than one failure of a worker within a short time."""

from datetime import datetime

from skyctl.domain.cluster import HealthPolicy
from skyctl.domain.states import WorkerStatus

# A transition between these is a change of health; a drain or a first heartbeat is none.
HEALTH = (WorkerStatus.ACTIVE, WorkerStatus.UNHEALTHY, WorkerStatus.OFFLINE)


def is_flapping(transitions: int, policy: HealthPolicy) -> bool:
    """Tell whether a worker with that many changes of health within the window is held out of placement."""
    return transitions >= policy.flap_transitions


def has_settled(changed_at: datetime, now: datetime, policy: HealthPolicy) -> bool:
    """Tell whether a flapping worker has been quiet for long enough since its last change."""
    return now - changed_at >= policy.flap_quiet
