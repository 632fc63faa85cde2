"""Drains: an administrator's choices for emptying a worker, where its containers would go, how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from skyctl.domain.cluster import Worker

BY_SWARM = "(by the swarm)"
"""The place of what the swarm places by itself."""
STOPS_LAST = "stops last"
"""The way of what runs on every node off a drained worker."""


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """An administrator's choices for emptying a worker: the reason, the time, the number of containers at once,
    whether those that are left then are stopped, whether services that run on every node stay there, and whether what
    keeps data there moves without it."""

    reason: str | None = None
    deadline: timedelta | None = None
    max_parallel: int | None = None
    force: bool = False
    keep_global: bool = False
    move_local_data: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A service and the place that was found for it, by the worker's name, or why there is none. `source` is where it
    is now, `way` how it would be moved from there (empty for a deployment), `containers` how many of it; what others
    deployed is of no organization. `unpinned`: why its image is not pinned to a digest (empty where it is, or nobody
    asked)."""

    service_name: str
    organization: str | None
    source: str | None
    target: str | None
    reason: str
    unpinned: str = ""
    way: str = ""
    containers: int = 1

    @property
    def is_left(self) -> bool:
        """Tell whether it would be left where it is."""
        return self.target is None and self.way != STOPS_LAST


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """The progress of a drain: the numbers of containers that moved off, are on their way, wait; the ones left, the
    obstacles of the others; and, once it is over, how many containers that are not under management the engine and the
    agent show there, of which services, and why nobody can say what else is there."""

    worker: Worker
    moved: int
    under_way: int
    waiting: int
    left: Sequence[str]
    reasons: Sequence[str]
    others: Sequence[str] = ()
    others_count: int = 0
    unknown: str = ""

    @property
    def is_empty(self) -> bool:
        """Tell whether it is over, and nothing is left, for all that can be known; of one that was cancelled nobody has
        looked."""
        is_at_its_end = self.worker.drain_finished_at is not None
        return is_at_its_end and not self.has_left and not self.unknown

    @property
    def has_left(self) -> bool:
        """Tell whether containers are known to be left, or to be on their way."""
        return bool(self.left or self.others_count) or not self.is_over

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will be moved off."""
        return self.worker.drain_requested_at is None or self.worker.drain_finished_at is not None

    @property
    def waits_for_others(self) -> bool:
        """Tell whether nothing of ours is there any more, and it is not over."""
        return not (self.is_over or self.under_way or self.waiting or self.left)

    @property
    def total(self) -> int:
        """All containers that were there, or are."""
        return self.moved + self.under_way + self.waiting + len(self.left)


class StillThere(NamedTuple):
    """What is on a drained worker while its drain is waited for: services of ours by name, the containers of others in
    words, and why nobody can say what else is there, empty where that is known."""

    ours: Sequence[str]
    others: Sequence[str]
    unknown: str
