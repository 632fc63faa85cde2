"""Mass failures: many workers that fail at once are one failure, until they are back."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from skyctl.domain.cluster import Event, MassFailure, Verdict
from skyctl.domain.event_details import LiftedMassFailure, SilentWorkers
from skyctl.domain.events import EventKind
from skyctl.domain.fleets import Silence
from skyctl.domain.states import WorkerStatus
from skyctl.domain.suspects import Suspect
from skyctl.operations.shared.leadership import Term
from skyctl.rules import health, mass_failure
from skyctl.store import db, events
from skyctl.store import health as store

MOST_NAMES = 100


class Open:
    """The mass failures that are not lifted, as many workers are held against them."""

    def __init__(self, tx: db.Transaction) -> None:
        self._failures = store.open_mass_failures(tx)
        self._ids = {failure.id for failure in self._failures}
        self._of: dict[str | None, list[MassFailure]] = {}

    def membership(self, worker: Suspect, verdict: Verdict) -> int | None:
        """Return the mass failure that a worker belongs to: one that fails, and began to before the failure was
        detected; or one that belongs to it already, and fails in another way now or comes back."""
        its = worker.mass_failure_id if worker.mass_failure_id in self._ids else None
        if its or not fails(verdict):
            return its
        since = _failing_since(worker, verdict)
        if since is None or health.stopped_on_purpose(worker):
            return None
        return next((failure.id for failure in self._of_region(worker.region) if since <= failure.detected_at), None)

    def _of_region(self, region: str | None) -> list[MassFailure]:
        """Those of everybody and of the region, the latest first."""
        if region not in self._of:
            self._of[region] = [failure for failure in self._failures if failure.region in (None, region)]
        return self._of[region]


def declare(term: Term, now: datetime, missed_since: datetime, due: Iterable[tuple[Suspect, Verdict]]) -> list[Event]:
    """Declare a mass failure where workers went silent, or lost their engines, and many others did too; these count as
    soon as they missed two heartbeats, or their engines are away."""
    failing = [
        (worker, verdict)
        for worker, verdict in due
        if fails(verdict) and health.is_to_be_told(worker, verdict) and not health.stopped_on_purpose(worker)
    ]
    if not failing:
        return []
    with term.reading() as tx:
        known = Open(tx)
    since = [_failing_since(*pair) or now for pair in failing if known.membership(*pair) is None]
    if not since:  # all of them belong to what was declared before
        return []
    policy = term.context.health
    not_before = max(since) - policy.mass_window
    with term.reading() as tx:  # every worker: nobody waits for the log meanwhile
        silences = _by_region(store.silences(tx, missed_since, not_before))
    failures = [silence for silence in silences if mass_failure.is_mass_failure(silence, policy)]
    whole = [silence for silence in failures if silence.region is None]
    if not failures:
        return []
    with term.recording() as tx:
        declared = [
            _mass_failure(store.declare_mass_failure(tx, silence), silence, term) for silence in whole or failures
        ]
        return events.append(tx, *declared)


def fails(verdict: Verdict) -> bool:
    """Tell whether the worker counts as failed: it is silent, or its engine is away."""
    return verdict.status is WorkerStatus.OFFLINE or verdict.engine_failed


def _failing_since(worker: Suspect, verdict: Verdict) -> datetime | None:
    """Return when the worker was last heard, or its engine first away."""
    of_engine = (
        (worker.engine_away_since, worker.node_down_since) if verdict.engine_failed or worker.engine_failed_at else ()
    )
    of_silence = () if verdict.engine_failed else (worker.last_heartbeat_at,)
    return min((since for since in (*of_engine, *of_silence) if since), default=None)


def _by_region(silences: Sequence[Silence]) -> list[Silence]:
    """Return the silence of all workers together, without a region, and then that of each region that has a name."""
    everybody = Silence(
        None,
        sum(silence.silent for silence in silences),
        sum(silence.schedulable for silence in silences),
        sorted(name for silence in silences for name in silence.names),
    )
    return [everybody, *(silence for silence in silences if silence.region is not None)]


def _mass_failure(number: int, silence: Silence, term: Term) -> Event:
    details = SilentWorkers(
        massFailureId=number,
        region=silence.region,
        silent=silence.silent,
        schedulable=silence.schedulable,
        workers=list(silence.names[:MOST_NAMES]),
    )
    reason = f"{silence.silent} of {silence.schedulable} workers failed"
    return Event(EventKind.MASS_FAILURE, None, None, "monitor", reason=reason, details=details, term=term.number)


def lift(term: Term, missed_since: datetime) -> list[Event]:
    """Lift the mass failures of which no worker is silent any more."""
    with term.reading() as tx:  # as long as some are, nobody waits for the log
        if not _over(tx, missed_since):
            return []
    with term.recording() as tx:
        over = _over(tx, missed_since)
        store.lift_mass_failures(tx, [failure.id for failure in over], "monitor")
        return events.append(tx, *(_recovery(failure, term) for failure in over))


def _over(tx: db.Transaction, missed_since: datetime) -> list[MassFailure]:
    silent = store.with_silent_members(tx, missed_since)
    return [failure for failure in store.open_mass_failures(tx) if failure.id not in silent]


def _recovery(failure: MassFailure, term: Term) -> Event:
    reason = f"all of the {failure.silent} workers that failed at once are back, or removed"
    details = LiftedMassFailure(massFailureId=failure.id, region=failure.region, silent=failure.silent)
    return Event(EventKind.MASS_RECOVERY, None, None, "monitor", reason=reason, details=details, term=term.number)
