"""Times as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from skyctl.documents import times
from skyctl.domain.errors import ValidationError

NOW = datetime(2026, 11, 30, 18, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("2w", timedelta(weeks=2)),
        ("1w2d3h4m5s", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5)),
        (" 1d ", timedelta(days=1)),
        ("365d", timedelta(days=365)),
    ],
)
def test_lengths(written: str, length: timedelta) -> None:
    assert times.duration("--for", written) == length


@pytest.mark.parametrize("written", ["", "0s", "30m1h", "1h1h", "1.5h", "1H", "5", "-1s", "366d", "1h 30m", "9999999w"])
def test_what_is_no_length_is_named(written: str) -> None:
    with pytest.raises(ValidationError, match=r"^--for: .* is not accepted") as refused:
        times.duration("--for", written)
    assert "1h30m" in refused.value.hint


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("1h30m", NOW - timedelta(hours=1, minutes=30)),
        ("2026-11-30T12:00Z", datetime(2026, 11, 30, 12, tzinfo=UTC)),
        ("2026-11-30T12:00+02:00", datetime(2026, 11, 30, 10, tzinfo=UTC)),
        ("2026-11-30 12:00", datetime(2026, 11, 30, 12).astimezone()),
        ("2026-11-30", datetime(2026, 11, 30).astimezone()),
    ],
)
def test_moments(written: str, moment: datetime) -> None:
    assert times.point("--since", written, NOW) == moment


@pytest.mark.parametrize("written", ["", "soon", "2026-13-01", "12:00", "9999999w"])
def test_what_is_no_moment_is_named(written: str) -> None:
    with pytest.raises(ValidationError, match=r"^--since: "):
        times.point("--since", written, NOW)
