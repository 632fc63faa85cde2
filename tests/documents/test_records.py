"""Values as one JSON document for the database."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from skyctl.documents import records
from skyctl.domain.cluster import Event
from skyctl.domain.errors import DatabaseRefused
from skyctl.domain.event_details import StatusChange
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.operations.shared.context import Context
from skyctl.store import events

AT = datetime(2026, 12, 1, 10, 11, 12, 345678, UTC)


def event(reason: str) -> Event:
    details = StatusChange(lastHeartbeatAt=AT.isoformat())
    of = (UUID(int=7), "w'\"\\{},ü\U0001f600", "monitor", WorkerStatus.ACTIVE, WorkerStatus.OFFLINE)
    return Event(EventKind.STATUS_CHANGED, *of, reason, details, 3, 0, AT)


@pytest.mark.parametrize("reason", ["silent", "a\nb\t\"c\" 'd' {e,f} \\n ü", "a lone \ud800 surrogate"])
def test_dataclasses_are_written_with_ids_times_and_any_text(reason: str) -> None:
    [written] = json.loads(records.dump([event(reason)]))
    assert written["worker_id"] == str(UUID(int=7))
    assert written["to_status"] == "offline"
    assert (written["worker_name"], written["reason"]) == (event("").worker_name, reason)
    assert datetime.fromisoformat(written["at"]) == AT


def test_events_come_back_as_they_were_and_in_their_order(context: Context) -> None:
    new = [event(f"{number} \\ \" ' ü \n") for number in range(50)]
    with context.db.transaction() as tx:
        appended = events.append(tx, *new)
        assert [each.seq for each in appended] == sorted(each.seq for each in appended)
        assert events.since(tx, appended[0].seq - 1, None) == appended
    assert [each.reason for each in appended] == [each.reason for each in new]


@pytest.mark.parametrize("text", ["\ud800", "nul \x00"])
def test_text_that_cannot_be_stored_is_refused_by_the_database(context: Context, text: str) -> None:
    with pytest.raises(DatabaseRefused), context.db.transaction() as tx:
        events.append(tx, event(text))


def test_a_neighbour_changes_nothing_of_how_a_value_is_written() -> None:
    odd, alone = {"text": "\ud800"}, {"figure": float("nan")}
    assert json.loads(records.dump([alone, odd]))[0] == json.loads(records.dump([alone]))[0] == {"figure": None}
