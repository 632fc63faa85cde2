"""This host's clock: what it shows, for the manager to compare with its own, and whether somebody has set it."""

from __future__ import annotations

import time
from datetime import datetime, timezone

# What NTP slews stays far below this between two reports; somebody who sets a clock is seldom content with less.
JUMP_SECONDS = 5.0


def shown() -> str:
    """The time that the clock shows now, ISO 8601 with its offset."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def lead() -> float:
    """By how many seconds the wall clock runs ahead of the monotonic one, which nobody sets."""
    return time.time() - time.monotonic()


def has_jumped(before: float, now: float) -> bool:
    """Tell whether the clock was set between two readings of `lead`, rather than that time has passed."""
    return abs(now - before) > JUMP_SECONDS
