"""The times at which to try again what failed."""

from datetime import timedelta

FIRST = timedelta(seconds=5)
LONGEST = timedelta(minutes=10)


def pause(attempts: int) -> timedelta:
    """The pause after the attempts made so far (1 or more): 5 s, doubling to 10 minutes."""
    return min(LONGEST, FIRST * (1 << min(attempts - 1, 10)))
