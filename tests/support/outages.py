"""Outages of ours, as tests describe them."""

from datetime import datetime, timedelta

from hypothesis import strategies as st

from skyctl.domain.cluster import Outage
from skyctl.rules import health

OUTAGES = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 300)), max_size=4)


def outages(now: datetime, spans: list[tuple[int, int]]) -> list[Outage]:
    """Outages that ended so many seconds ago and lasted so long."""
    ends = [(now - timedelta(seconds=ago), timedelta(seconds=lasted)) for ago, lasted in spans]
    return health.merged(Outage(end - lasted, end) for end, lasted in ends)
