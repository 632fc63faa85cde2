"""The pauses between attempts: pure functions of the number of failures and a random fraction in [0, 1). All in
seconds."""

from __future__ import annotations

FIRST_CEILING = 1.0
LAST_CEILING = 30.0
REFUSED = 60.0
SPREAD = 0.1


def retry_delay(failures: int, fraction: float, at_least: float = 0.0) -> float:
    """The wait after `failures` (from 1) failures in a row: the upper half of a ceiling that doubles from 1 to 30.

    The lower half is certain, so that those who come back together do not come faster than they would beat: were it
    random as well, they would try twice as often as they beat. `at_least` (Retry-After) is added rather than taken as a
    bound, so that a fleet does not return at one instant.
    """
    doublings = min(failures - 1, 5)
    ceiling = min(FIRST_CEILING * 2.0**doublings, LAST_CEILING)
    return at_least + ceiling * (1 + fraction) / 2


def jittered(seconds: float, fraction: float) -> float:
    """`seconds`, at most a tenth shorter or longer."""
    return seconds * (1 - SPREAD + 2 * SPREAD * fraction)
