"""Which events of the log are wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Events of one of these workers and of one of these kinds, where there are any; from a moment on, before another
    one, and before the event of a number."""

    worker_ids: Sequence[UUID] = ()
    kinds: Sequence[str] = ()
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    before: int | None = None


ALL = EventFilter()
