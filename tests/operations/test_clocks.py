"""The clocks of workers: how far they are off is stored, and nothing else comes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from skyctl.operations.agents import invitations
from skyctl.operations.agents.registration import register
from skyctl.operations.shared.context import Context
from skyctl.rules.clocks import offset_seconds
from tests.support.helpers import PATIENCE_SECONDS, TESTS, registration

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("shown", "offset"),
    [
        ("2026-11-24T12:00:00+00:00", 0),
        ("2026-11-24T12:00:00.26Z", 0.3),
        ("2026-11-24T14:00:00+01:00", 3600),
        ("2026-11-24T11:00:00.000Z", -3600),
    ],
)
def test_a_clock_is_compared_with_the_databases(shown: str, offset: float) -> None:
    assert offset_seconds(shown, NOW) == offset


@pytest.mark.parametrize("shown", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_the_ends_of_time_are_times(shown: str) -> None:
    assert abs(offset_seconds(shown, NOW) or 0) > 1e10


@pytest.mark.parametrize("shown", [None, 5, True, "", "noon", "2026-11-24T12:00:00", "2026-13-01T00:00:00Z", {}, ["x"]])
def test_what_is_no_time_with_an_offset_is_ignored(shown: object) -> None:
    assert offset_seconds(shown, NOW) is None


def test_a_registration_stores_the_offset_in_place_of_the_clock(
    context: Context, connection: psycopg.Connection
) -> None:
    invitation = invitations.invite(context, TESTS)

    def offset_of(**metadata: object) -> object:
        register(context, invitation.token, replace(registration(), metadata={"region": "eu", **metadata}))
        row = connection.execute("SELECT metadata, status, last_heartbeat_at FROM container_workers").fetchone()
        assert row
        assert row[1:] == ("pending", None)
        assert "clock" not in row[0]
        assert row[0]["claimedRegion"] == "eu"
        return row[0].get("clockOffsetSeconds")

    assert offset_of(clock=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == pytest.approx(
        3600, abs=PATIENCE_SECONDS
    )
    assert offset_of(clock=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == pytest.approx(
        -3600, abs=PATIENCE_SECONDS
    )
    assert offset_of(clock="noon") is None, "what was known may no longer be true"
    assert offset_of(clockOffsetSeconds=7) is None, "only the manager compares"
