"""Clocks of others: how far they are from the database's, which alone decides anything."""

from datetime import datetime

OFFSET = "clockOffsetSeconds"


def offset_seconds(shown: object, now: datetime) -> float | None:
    """By how many seconds a clock that shows this ISO 8601 time is ahead of `now`; None where it is no time with an
    offset."""
    if not isinstance(shown, str):
        return None
    try:
        at = datetime.fromisoformat(shown)
    except ValueError:
        return None
    return round((at - now).total_seconds(), 1) if at.utcoffset() is not None else None
