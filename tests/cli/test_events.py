"""The log by time, worker and kind, in local time or UTC."""

import json

import psycopg
import pytest

from tests.support.helpers import add_worker
from tests.support.in_process import InProcess


@pytest.fixture
def seqs(connection: psycopg.Connection) -> list[str]:
    """The numbers of five events: of a worker that is gone, of two that are there, and of none; the last is new."""
    first, second = add_worker(connection, name="w1"), add_worker(connection, name="w2")
    connection.execute("DELETE FROM worker_events")
    written = (
        ("stopped", "00000000-0000-4000-8000-000000000001", "gone", "3 days"),
        ("stopped", first, "w1", "100 minutes"),
        ("drain_requested", second, "w2", "80 minutes"),
        ("drain_cancelled", second, "w2", "50 minutes"),
        ("migrations_paused", None, None, "0 s"),
    )
    return [
        str(
            connection.execute(
                "INSERT INTO worker_events (kind, worker_id, worker_name, actor, at) "
                "VALUES (%s, %s, %s, 'tests', now() - %s::interval) RETURNING seq",
                event,
            ).fetchone()[0]  # type: ignore[index]
        )
        for event in written
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", "01234"),
        ("--since 1h30m", "234"),
        ("--since 2w", "01234"),
        ("--since 2h --until 1h", "12"),
        ("--until 2h", "0"),
        ("--worker w1,w2", "123"),
        ("--worker w1 --worker gone", "01"),
        ("--kind stopped", "01"),
        ("--kind stopped,drain_requested --since 1d", "12"),
        ("--worker w2 -n 1", "3"),
        ("--since 2h -n 2", "34"),
        ("--since 2100-01-01", ""),
    ],
)
def test_events_by_time_worker_and_kind(typed: InProcess, seqs: list[str], options: str, found: str) -> None:
    done = typed("events", "-o", "name", *options.split())
    assert (done.returncode, done.stdout.split()) == (0, [seqs[int(number)] for number in found])


def test_after_a_number_as_ever_and_with_filters(typed: InProcess, seqs: list[str]) -> None:
    assert typed("events", "--since", seqs[1], "-o", "name").stdout.split() == seqs[2:]
    assert typed("events", "--since", seqs[0], "--kind", "stopped", "-o", "name").stdout.split() == seqs[1:2]


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        ("--since soon", 2, "--since: 'soon' is not accepted"),
        ("--until 1x", 2, "--until: '1x' is not accepted"),
        ("--kind nothing", 2, "--kind: 'nothing' is not accepted"),
        ("--worker nobody", 3, "there is no worker 'nobody'"),
        ("--follow --until 1h", 2, "--follow goes on, and --until ends"),
    ],
)
@pytest.mark.usefixtures("seqs")
def test_what_cannot_be_asked_for(typed: InProcess, options: str, code: int, error: str) -> None:
    done = typed("events", *options.split())
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (code, "", f"error: {error}")


def test_times_are_local_and_in_utc_where_that_is_wanted(
    typed: InProcess, connection: psycopg.Connection, seqs: list[str]
) -> None:
    connection.execute("UPDATE worker_events SET at = '2026-06-30T23:30:00Z' WHERE seq = %s", (seqs[4],))
    options = ("events", "--kind", "migrations_paused")
    assert "2026-07-01T01:30:00+02:00 migrations_paused" in typed(*options, TZ="Europe/Berlin").stdout
    assert "2026-06-30T23:30:00Z migrations_paused" in typed(*options, "--utc", TZ="Europe/Berlin").stdout
    [event] = json.loads(typed(*options, "-o", "json").stdout)["events"]
    assert event["at"].startswith("2026-06-30T23:30:00")
    until = typed(*options, "--until", "2026-07-01T01:30:01", "-o", "name", TZ="Europe/Berlin")
    assert until.stdout.split() == [seqs[4]]
