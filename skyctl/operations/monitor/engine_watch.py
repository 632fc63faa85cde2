"""Note since when the engine cannot be asked, and tell administrators where that lasts, once, and when it is over."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from skyctl.domain.cluster import Event
from skyctl.domain.events import EventKind
from skyctl.domain.text import span
from skyctl.operations.shared.leadership import Term
from skyctl.store import db, events, leases

TOLD_AFTER = timedelta(minutes=2)
LONGEST_GAP = timedelta(minutes=3)
"""Between two questions, several times the longest pause: what was before a longer one says nothing of the engine."""


class Absence(NamedTuple):
    """The events of an engine that cannot be asked, and in how many seconds there is one if that lasts."""

    events: Sequence[Event]
    due_seconds: float | None


def trouble(term: Term) -> str | None:
    """Return why the engine could not be asked when a monitor last tried; None where it could."""
    with term.reading() as tx:
        return leases.engine_trouble(tx)


def note_away(term: Term, reason: str) -> Absence:
    """Note why the engine could not be asked just now, for people to see. Raises LostLead."""
    with term.writing() as tx:
        away = leases.note_engine_away(tx, term.lease, reason, LONGEST_GAP)
        lasted = db.now(tx) - away.since
    if away.is_told or lasted < TOLD_AFTER:
        return Absence((), None if away.is_told else (TOLD_AFTER - lasted).total_seconds())
    with term.recording() as tx:
        leases.note_engine_told(tx, term.lease)
        why = f"for {span(lasted)}: {reason}"
        return Absence(events.append(tx, _event(term, EventKind.ENGINE_LOST, why)), None)


def note_answer(term: Term) -> list[Event]:
    """Note that the engine has answered; return the event of it where people were told that it did not. Raises
    LostLead."""
    with term.recording() as tx:
        away = leases.note_engine_answer(tx, term.lease)
        if away is None or not away.is_told:
            return []
        return events.append(tx, _event(term, EventKind.ENGINE_BACK, f"after {span(db.now(tx) - away.since)}"))


def _event(term: Term, kind: EventKind, reason: str) -> Event:
    return Event(kind, None, None, "monitor", reason=reason, term=term.number)
