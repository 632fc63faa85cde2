"""The rule of waiting, over all numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skyagent.backoff import jittered, retry_delay

fractions = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, 10**9)


@given(failures, fractions, st.floats(0, 3600))
def test_a_retry_comes_neither_at_once_nor_later_than_half_a_minute(count: int, fraction: float, least: float) -> None:
    assert least + 0.5 <= retry_delay(count, fraction, least) <= least + 30


@given(failures, fractions)
def test_more_failures_never_mean_less_patience(count: int, fraction: float) -> None:
    assert retry_delay(count, fraction) <= retry_delay(count + 1, fraction)


@given(fractions)
def test_the_ceiling_doubles_from_one_second_to_thirty(fraction: float) -> None:
    ceilings = [1, 2, 4, 8, 16, 30, 30]
    expected = [ceiling * (1 + fraction) / 2 for ceiling in ceilings]
    assert [retry_delay(count, fraction) for count in range(1, 8)] == expected


@given(st.floats(0.1, 3600), fractions)
def test_jitter_is_a_tenth_either_way(seconds: float, fraction: float) -> None:
    assert seconds * 0.9 * (1 - 1e-9) <= jittered(seconds, fraction) <= seconds * 1.1 * (1 + 1e-9)


def test_jitter_reaches_both_ends() -> None:
    assert jittered(30, 0) == 27
    assert jittered(30, 0.5) == 30
    assert 32.9 < jittered(30, 0.999) < 33
