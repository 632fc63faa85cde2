"""Times as people write them: how long, and since when."""

import re
from datetime import datetime, timedelta

from skyctl.documents.http import invalid

UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
DURATION = re.compile("".join(rf"(?:(?P<{unit}>[0-9]{{1,7}}){unit})?" for unit in UNITS), re.ASCII)
LONGEST = timedelta(days=365)


def duration(field: str, value: str) -> timedelta:
    """Return a length of time, such as 90s, 1h30m or 2w. Raises ValidationError that names the field."""
    length = _length(value)
    if not timedelta() < length <= LONGEST:
        raise invalid(field, value, "a length of time such as 90s, 30m, 1h30m, 1d or 2w, at most 365d")
    return length


def point(field: str, value: str, now: datetime) -> datetime:
    """Return a moment: so long before `now`, or a date with a time or without, in local time unless it says another.
    Raises ValidationError that names the field."""
    try:
        if length := _length(value):
            return now - length
        return datetime.fromisoformat(value.strip()).astimezone()
    except (ValueError, OverflowError):
        raise invalid(
            field, value, "a length of time such as 1h30m or 2w, or a date such as 2026-11-30T18:00"
        ) from None


def _length(value: str) -> timedelta:
    parts = match.groupdict() if (match := DURATION.fullmatch(value.strip())) else {}
    return timedelta(**{UNITS[unit]: int(number) for unit, number in parts.items() if number})
