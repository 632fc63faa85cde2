"""Text that others wrote: what a database can hold of it, and how a terminal may be shown it. Times in words."""

import re
from datetime import datetime, timedelta

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
UNITS = (("d", 86_400), ("h", 3600), ("m", 60))


def printable(value: object) -> str:
    """A text that others wrote, without what would make a terminal do something."""
    return CONTROL.sub(lambda control: ascii(control[0])[1:-1], str(value))


def storable(text: str) -> bool:
    """Tell whether PostgreSQL can hold the text: no NUL, no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def span(time: timedelta) -> str:
    """Return a time in its largest unit, such as `3h`."""
    seconds = max(0, round(time.total_seconds()))
    for unit, size in UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def ago(now: datetime, at: datetime) -> str:
    """Return how long ago a moment was, such as `3h ago`."""
    return f"{span(now - at)} ago"


def clock_offset(seconds: float) -> str:
    """Return how far a clock is from another one, such as `2.5s ahead`."""
    amount = f"{abs(seconds):.1f}s" if abs(seconds) < UNITS[-1][1] else span(timedelta(seconds=abs(seconds)))
    return f"{amount} {'ahead' if seconds >= 0 else 'behind'}"
