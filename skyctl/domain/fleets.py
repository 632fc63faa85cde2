"""A fleet as it is looked at: a place in the order of its workers, and how much of a region has fallen silent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID


class Place(NamedTuple):
    """A place in the order of the workers' names, that of a worker or of one that was there."""

    name: str
    worker_id: UUID

    def __str__(self) -> str:
        return f"{self.name}:{self.worker_id}"

    @staticmethod
    def read(text: str) -> "Place | None":
        """The place that is written so; None where none is."""
        name, colon, worker_id = text.rpartition(":")
        try:
            return Place(name, UUID(worker_id)) if colon and len(worker_id) == LENGTH_OF_ID else None
        except ValueError:
            return None


LENGTH_OF_ID = 36


@dataclass(frozen=True, slots=True)
class Silence:
    """The number of a region's workers that failed within the window, of those that could take containers."""

    region: str | None
    silent: int
    schedulable: int
    names: Sequence[str]
