"""What administrators wish of a worker beside drains: that it takes nothing new, that alerts of it wait."""

from datetime import datetime
from typing import NamedTuple


class Cordon(NamedTuple):
    """Since when a worker is to take nothing new, and why."""

    since: datetime
    reason: str | None


class AlertSilence(NamedTuple):
    """Until when alerts of a worker's health are held back from the channels, and why."""

    until: datetime
    reason: str | None
