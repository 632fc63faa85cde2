"""What fails over and over is a line for each change of it."""

import logging

import pytest

from skyctl.host.condition import MOST_REASONS, Condition, Conditions

log = logging.getLogger("of a test")


def test_a_line_for_the_begin_for_each_reason_and_for_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    condition = Condition(log, "refused", "accepted", "path=/x", quiet_seconds=0.0)
    for _ in range(2):
        condition.works()
        for reason in ("away", "away", "full", "away", "full"):
            condition.failed(reason, 10)
        condition.works()
        condition.works()
    spell = ["action=refused path=/x reason='away'", "action=refused path=/x reason='full'"]
    assert caplog.messages == [*spell, "action=accepted path=/x failures=50 failed_for_seconds=0"] * 2


def test_what_fails_now_and_then_is_one_spell(caplog: pytest.LogCaptureFixture) -> None:
    condition = Condition(log, "refused", "accepted", quiet_seconds=3600.0)
    for _ in range(100):
        condition.failed("away")
        condition.works()
    assert caplog.messages == ["action=refused reason='away'"]


def test_reasons_that_are_never_the_same_are_told_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    condition = Condition(log, "refused", "accepted", quiet_seconds=0.0)
    for number in range(1000):
        condition.failed(f"by {number}")
    condition.works()
    assert len(caplog.messages) == MOST_REASONS + 1
    assert "failures=1000" in caplog.messages[-1]


def test_an_error_that_nobody_expected_shows_its_traceback_once(caplog: pytest.LogCaptureFixture) -> None:
    conditions = Conditions(log, "failed", "works", "step")
    for _ in range(3):
        conditions["sign"].failed("ValueError: no", error=ValueError("no"))
    assert [bool(record.exc_info) for record in caplog.records] == [True]
    assert caplog.messages == ["action=failed step=sign reason='ValueError: no'"]
