"""What the doctor finds."""

from dataclasses import dataclass
from enum import StrEnum


class CheckState(StrEnum):
    """The result of a check: `warning` is worth a look, `failed` keeps something from working."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and where that is not well, what to do about it."""

    name: str
    state: CheckState
    found: str
    remedy: str = ""
