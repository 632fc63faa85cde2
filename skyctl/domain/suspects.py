"""A worker as far as its health is concluded from it: thousands of them at once are read and assessed as this."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from skyctl.domain.cluster import Load, Worker
from skyctl.domain.states import WorkerStatus


class Suspect(NamedTuple):
    """A worker whose status may not be what the facts call for; what it has of a `Worker` is the same as there.

    `region`: None where the worker has none that is text.
    """

    id: UUID
    name: str
    status: WorkerStatus
    concluded_status: WorkerStatus | None
    load: Load
    recent_cpu: Sequence[float]
    last_heartbeat_at: datetime | None
    stopped_at: datetime | None
    status_changed_at: datetime | None
    drain_requested_at: datetime | None
    drain_reason: str | None
    undrained_at: datetime | None
    engine_away_since: datetime | None
    engine_away_seen_at: datetime | None
    engine_trouble: str
    node_down_since: datetime | None
    node_down_seen_at: datetime | None
    engine_failed_at: datetime | None
    swarm_node_id: str | None
    swarm_node_claim: str | None
    mass_failure_id: int | None
    region: str | None

    @property
    def known_status(self) -> WorkerStatus:
        """The status that people know, as `Worker.known_status`."""
        return self.concluded_status or self.status


Facts = Worker | Suspect
