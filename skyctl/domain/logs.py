"""Lines that containers write, as the engine hands them out."""

from typing import NamedTuple


class LogLine(NamedTuple):
    """A line that a container wrote: when, in the engine's words, the container's task, its node, and the text."""

    at: str
    task_id: str
    node_id: str
    text: str


class LogOptions(NamedTuple):
    """Which lines of a log: the last `tail` of each container (None: all), those since a time in seconds since 1970
    (None: any), and whether those that are still to come."""

    tail: int | None = None
    since: int | None = None
    follow: bool = False
