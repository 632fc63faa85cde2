"""What a monitor has seen of its workers, so that a pass over many reads few of them again.

Heartbeats are in no index: who has fallen silent is found by reading rows. But whoever was heard at a time is silent no
sooner than the timeout later. A large table is looked at by ranges of its pages. Of each the oldest heartbeat is
remembered: until that is too old, nobody there is silent. Every range is read again within three quarters of the
timeout, a few at a time. Every pass reads what is not plainly active, and the workers that somebody has named.

A row that was moved by anything but a heartbeat, into a range that was just read, is seen with that range: at most
three quarters of the timeout later.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from math import ceil
from uuid import UUID

from skyctl.domain.cluster import HealthPolicy
from skyctl.store import db
from skyctl.store import health as store

SMALL_BLOCKS = 16_384  # some 50,000 workers: one scan of them all at every pass
RANGE_BLOCKS = 4_096
AT_ONCE = 8  # ranges of one transaction
MOST_NAMED = 20_000
ROUND = 0.75  # of the timeout: about when the heartbeats of a round before are too old to tell of silence
LOOKS = 9  # of a round
_UNKNOWN = datetime.min.replace(tzinfo=UTC)

Reading = Callable[[], AbstractContextManager[db.Transaction]]


class Sight:
    """The oldest heartbeat of each range of pages, as it was last seen (None: nobody there beats); nothing of a table
    that is small."""

    def __init__(self, small_blocks: int = SMALL_BLOCKS, range_blocks: int = RANGE_BLOCKS) -> None:
        self._small, self._range = small_blocks, range_blocks
        self._named: set[UUID] = set()
        self._oldest: list[datetime | None] = []
        self._looked_at: datetime | None = None
        self._term, self._file, self._next = 0, 0, 0

    def forget(self) -> None:
        """Take nothing for seen: the next look is at everything."""
        self._named.clear()
        self._oldest.clear()
        self._looked_at = None

    def name(self, worker_ids: Iterable[UUID]) -> None:
        """Have these workers looked at next."""
        self._named.update(worker_ids)

    def pause(self, policy: HealthPolicy) -> timedelta | None:
        """How long the next look may wait; None where it is at everything."""
        return ROUND * policy.heartbeat_timeout / LOOKS if self._oldest else None

    def look(
        self,
        reading: Reading,
        term: int,
        policy: HealthPolicy,
        now: datetime,
        silent_since: datetime,
        passed_over: Collection[UUID],
    ) -> store.Survey:
        """Look at what may have changed, in a monitor's term; see `store.survey`."""
        if term != self._term or len(self._named) > MOST_NAMED:
            self.forget()
        self._term = term
        with reading() as tx:
            file, blocks = store.extent(tx)
            if blocks <= self._small:
                self.forget()
                return store.survey(tx, policy, silent_since, passed_over)
            parts = [store.watched()] + ([store.these(self._named)] if self._named else [])
            seen = [store.survey(tx, policy, silent_since, passed_over, part) for part in parts]
        if file != self._file:
            self.forget()
        self._file, number = file, ceil(blocks / self._range)
        self._oldest = [*self._oldest[:number], *[_UNKNOWN] * (number - len(self._oldest))]
        due = {place for place, oldest in enumerate(self._oldest) if oldest and oldest < silent_since}
        for some in _batches(sorted(due.union(self._round(number, now, policy)))):
            with reading() as tx:
                for place in some:
                    pages = range(place * self._range, (place + 1) * self._range)
                    found = store.survey_pages(tx, policy, silent_since, passed_over, pages)
                    self._oldest[place] = found.oldest_heartbeat_at
                    seen.append(found)
        self._looked_at = now
        self._named.clear()
        return _together(seen, min((oldest for oldest in self._oldest if oldest), default=None))

    def _round(self, number: int, now: datetime, policy: HealthPolicy) -> Iterator[int]:
        """The ranges whose turn it is: of all of them that part which the time that has passed is of a round."""
        if self._looked_at is None:
            return
        share = max(timedelta(), now - self._looked_at) / (ROUND * policy.heartbeat_timeout)
        for _ in range(min(number, ceil(number * share))):
            self._next = (self._next + 1) % number
            yield self._next


def _batches(places: list[int]) -> Iterator[list[int]]:
    return (places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE))


def _together(seen: Collection[store.Survey], oldest: datetime | None) -> store.Survey:
    return store.Survey(
        suspects=list(dict.fromkeys(each for survey in seen for each in survey.suspects)),
        settled=list(dict.fromkeys(each for survey in seen for each in survey.settled)),
        oldest_heartbeat_at=oldest,
        quiet_since=min((survey.quiet_since for survey in seen if survey.quiet_since), default=None),
    )
