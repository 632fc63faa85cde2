"""What is printed, from values alone: no database, no process."""

from datetime import UTC, datetime, timedelta

import pytest

from skyctl.cli import views
from skyctl.documents.http import Document
from skyctl.documents.workers import page_document
from skyctl.domain.cluster import HealthPolicy, WorkerPage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INTERVAL = timedelta(seconds=30)


def page(monitor_seen_at: datetime | None, *, leads: bool = False) -> Document:
    read = WorkerPage((), 0, 100, 0, NOW, monitor_seen_at, leads)
    return page_document(read, HealthPolicy(heartbeat_interval=INTERVAL))


def test_without_a_monitor_that_leads_a_command_warns_of_what_nobody_does() -> None:
    for seen, lack in ((None, "has run yet"), (NOW - INTERVAL, "leads; the last pass was 30s ago")):
        warning = views.workers.monitor_warning(page(seen), "nothing is moved")
        assert warning == f"warning: no monitor {lack}: nothing is moved until one does. Run `skyctl monitor`."
    assert views.workers.monitor_warning(page(NOW, leads=True), "nothing is moved") == ""


def test_an_old_pass_makes_statuses_doubtful_and_a_new_one_is_not_worth_a_note() -> None:
    never = views.workers.monitor_footnote(page(None))
    assert never == "note: no monitor has run yet, so statuses do not change. Run `skyctl monitor`."
    assert "last monitor pass was 2m ago" in views.workers.monitor_footnote(page(NOW - 4 * INTERVAL))
    assert views.workers.monitor_footnote(page(NOW - 3 * INTERVAL)) == ""


@pytest.mark.parametrize(
    ("length", "text", "until"),
    [(0, "0s", ""), (59, "59s", "59s"), (60, "1m", "1m"), (7260, "2h", "2h 1m"), (90_060, "1d", "1d 1h 1m")],
)
def test_lengths_of_time_have_units_that_are_read_at_a_glance(length: int, text: str, until: str) -> None:
    assert views.formats.span(timedelta(seconds=length)) == text
    assert views.formats.ahead((NOW + timedelta(seconds=length)).isoformat(), NOW.isoformat()) == (until or "0s")


@pytest.mark.parametrize(
    ("mebibytes", "text"), [(0, "0.0 MiB"), (99.9, "99.9 MiB"), (1024, "1.0 GiB"), (200 * 1024, "200 GiB")]
)
def test_sizes_have_the_largest_unit_that_fits(mebibytes: float, text: str) -> None:
    assert views.formats.size(mebibytes) == text


@pytest.mark.parametrize(
    ("shown", "total", "offset", "text"),
    [
        (0, 0, 0, "No workers."),
        (0, 5, 9, "No workers at --offset 9; there are 5."),
        (1, 1, 0, "1 worker"),
        (2, 5, 2, "3 to 4 of 5 workers; more: --offset 4"),
    ],
)
def test_a_page_says_what_it_is_of(shown: int, total: int, offset: int, text: str) -> None:
    assert views.formats.counted("worker", shown, total, offset) == text


@pytest.mark.parametrize(("percent", "bar"), [(0, "░░░░"), (50, "██░░"), (300, "████")])
def test_a_bar_is_never_wider_than_its_cells(percent: float, bar: str) -> None:
    assert views.formats.blocks(percent, 4) == bar
