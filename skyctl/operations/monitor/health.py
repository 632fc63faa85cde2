"""The monitor's story: from the facts about every worker to its status, each change with its event in one
transaction."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar
from uuid import UUID

from skyctl.domain.cluster import (
    Event,
    HealthPolicy,
    Lease,
    MassFailure,
    Outage,
    Silence,
    Verdict,
    Worker,
    WorkerStatus,
)
from skyctl.domain.errors import DatabaseRefused
from skyctl.domain.events import EventKind, LiftedMassFailure, SilentWorkers, StatusChange
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.leadership import TTL
from skyctl.operations.shared.outages import known_outages
from skyctl.rules import flapping, health, mass_failure
from skyctl.store import db, events, leases
from skyctl.store import health as store

LOOK_AGAIN_SECONDS = 1.0
MOST_AT_ONCE = 20_000
PART = 1_000
SAID_NAMES = 100

T = TypeVar("T")


class Poison(NamedTuple):
    """A worker that the database does not let be changed, and why."""

    worker: Worker
    reason: str


@dataclass(frozen=True, slots=True)
class HealthPass:
    """What one look at every worker gave: the events, the workers that could not be changed, and in how many seconds
    something can change by the passing of time alone."""

    events: Sequence[Event]
    poison: Sequence[Poison]
    next_deadline_seconds: float | None


class Snapshot(NamedTuple):
    """What a pass sees: the time, the outages of ours that are to be taken out of any silence, who may have to
    change."""

    now: datetime
    outages: Sequence[Outage]
    survey: store.Survey
    suspects: Sequence[Worker]
    settled: Sequence[Worker]

    @property
    def survey_is_cut(self) -> bool:
        """Whether there were more suspects than one pass takes."""
        return len(self.survey.suspects) > len(self.suspects)


def check(context: Context, lease: Lease, passed_over: Collection[UUID] = ()) -> HealthPass:
    """Look at every worker once, and change the statuses that the facts no longer call for, but of those `passed_over`.

    Raises LostLead, DatabaseUnavailable.
    """
    snapshot = _look(context, passed_over)
    verdicts = [
        (worker, health.assess(worker, snapshot.now, snapshot.outages, context.health)) for worker in snapshot.suspects
    ]
    due = [(worker, verdict) for worker, verdict in verdicts if verdict.status is not worker.status]
    declared = _declare_mass_failures(context, lease, snapshot, due)
    concluded, poison = _in_parts(due, lambda part: _change(context, lease, part), lambda each: each[0])
    quiet = [
        worker
        for worker in snapshot.settled
        if worker.status_changed_at and flapping.has_settled(worker.status_changed_at, snapshot.now, context.health)
    ]
    settled, more = _in_parts(quiet, lambda part: _settle(context, lease, part), lambda each: each)
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        lifted = _lift(tx, lease, _missed_since(snapshot, context.health))
        leases.note_pass(tx, lease)
    changed = [event for event in concluded if event.kind == EventKind.STATUS_CHANGED]
    waiting = snapshot.survey_is_cut or len(due) > len(changed) + len(poison)
    return HealthPass(
        events=[*declared, *concluded, *settled, *lifted],
        poison=[*poison, *more],
        next_deadline_seconds=LOOK_AGAIN_SECONDS if waiting else _next_deadline(snapshot, context.health),
    )


def _look(context: Context, passed_over: Collection[UUID]) -> Snapshot:
    with context.db.transaction() as tx:
        now, outages = db.now(tx), known_outages(tx)
        silent_since = health.cutoff(now, outages, context.health.heartbeat_timeout)
        survey = store.survey(tx, context.health, silent_since, passed_over)
        suspects, settled = (
            store.fetch(tx, ids[:MOST_AT_ONCE]) if ids else [] for ids in (survey.suspects, survey.settled)
        )
        return Snapshot(now, outages, survey, suspects, settled)


def _in_parts(
    those: Sequence[T], write: Callable[[Sequence[T]], list[Event]], worker_of: Callable[[T], Worker]
) -> tuple[list[Event], list[Poison]]:
    """Write so many in a transaction that none takes long. Where the database refuses one, each half of those for
    itself, until only what it refuses is left."""
    written: list[Event] = []
    poison: list[Poison] = []
    parts = [those[start : start + PART] for start in range(0, len(those), PART)][::-1]
    while parts:
        part = parts.pop()
        try:
            written += write(part)
        except DatabaseRefused as error:
            if len(part) == 1:
                poison.append(Poison(worker_of(part[0]), error.message))
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
    return written, poison


def _declare_mass_failures(
    context: Context, lease: Lease, snapshot: Snapshot, due: Iterable[tuple[Worker, Verdict]]
) -> list[Event]:
    """Where workers went silent, see whether many more did: those that missed two heartbeats count already."""
    silent = [
        worker
        for worker, verdict in due
        if verdict.status is WorkerStatus.OFFLINE and not health.stopped_on_purpose(worker)
    ]
    if not silent:
        return []
    policy, missed_since = context.health, _missed_since(snapshot, context.health)
    not_before = max(worker.last_heartbeat_at or snapshot.now for worker in silent) - policy.mass_window
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        found = [
            each
            for each in _by_region(store.silences(tx, missed_since, not_before))
            if mass_failure.is_mass_failure(each, policy)
        ]
        whole = [each for each in found if each.region is None]
        declared = [_mass_failure(store.declare_mass_failure(tx, each), each, lease) for each in whole or found]
        return events.append(tx, *declared)


def _missed_since(snapshot: Snapshot, policy: HealthPolicy) -> datetime:
    """The time since which two heartbeats were missed: who beat last before it may be on its way offline."""
    return health.cutoff(snapshot.now, snapshot.outages, min(2 * policy.heartbeat_interval, policy.heartbeat_timeout))


def _goes_offline(verdict: Verdict) -> bool:
    return verdict.status is WorkerStatus.OFFLINE


def _by_region(silences: Sequence[Silence]) -> list[Silence]:
    """The regions that have a name, and before them, without one, all workers together."""
    names = [name for each in silences for name in each.names]
    everybody = Silence(
        None, sum(each.silent for each in silences), sum(each.schedulable for each in silences), sorted(names)
    )
    return [everybody, *(each for each in silences if each.region is not None)]


def _mass_failure(number: int, silence: Silence, lease: Lease) -> Event:
    details = SilentWorkers(
        massFailureId=number,
        region=silence.region,
        silent=silence.silent,
        schedulable=silence.schedulable,
        workers=list(silence.names[:SAID_NAMES]),
    )
    reason = f"{silence.silent} of {silence.schedulable} workers fell silent"
    return Event(EventKind.MASS_FAILURE, None, None, "monitor", reason=reason, details=details, term=lease.term)


def _change(context: Context, lease: Lease, due: Sequence[tuple[Worker, Verdict]]) -> list[Event]:
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        open_failures = store.open_mass_failures(tx)
        membership = {worker.id: _membership(worker, verdict, open_failures) for worker, verdict in due}
        wanted = [
            store.Change(one.id, one.status, verdict.status, membership[one.id] if _goes_offline(verdict) else None)
            for one, verdict in due
        ]
        changed = store.change(tx, wanted)
        those = [each for each in due if each[0].id in changed]
        written = events.append(tx, *(_changed(*each, membership[each[0].id], lease, context.health) for each in those))
        return written + _note_flapping(tx, context.health, changed, lease)


def _note_flapping(tx: db.Transaction, policy: HealthPolicy, changed: Iterable[UUID], lease: Lease) -> list[Event]:
    counts = events.transitions(tx, changed, flapping.HEALTH, policy.flap_window)
    often = [worker_id for worker_id, count in counts.items() if flapping.is_flapping(count, policy)]
    begun = store.begin_flapping(tx, often) if often else []
    said = f"{{}} changes within {policy.flap_window.total_seconds() / 60:g} minutes, now {{}}"
    return events.append(
        tx, *(_of(one, EventKind.FLAPPING, said.format(counts[one.id], one.status), lease) for one in begun)
    )


def _membership(worker: Worker, verdict: Verdict, open_failures: Iterable[MassFailure]) -> int | None:
    """The mass failure, not lifted yet, that a worker belongs to: one that goes silent, and beat last before that was
    detected; or one that comes back from it."""
    heard_at = worker.last_heartbeat_at
    if not _goes_offline(verdict):
        return next((one.id for one in open_failures if one.id == worker.mass_failure_id), None)
    if heard_at is None or health.stopped_on_purpose(worker):
        return None
    region = worker.metadata.get("region")
    return next((one.id for one in open_failures if one.region in (None, region) and heard_at <= one.detected_at), None)


def _changed(
    worker: Worker, verdict: Verdict, mass_failure_id: int | None, lease: Lease, policy: HealthPolicy
) -> Event:
    """The event of a change, with the figures that decided it."""
    heard_at, load = worker.last_heartbeat_at, worker.load
    details = StatusChange(lastHeartbeatAt=heard_at.isoformat() if heard_at else None)
    if verdict.status is WorkerStatus.UNHEALTHY:
        details["load"] = {
            "cpuPercent": load.cpu_percent,
            "memoryPercent": load.memory_percent,
            "diskPercent": load.disk_percent,
        }
    if health.stopped_on_purpose(worker) or (worker.status is WorkerStatus.OFFLINE and _was_stopped(worker, policy)):
        details["onPurpose"] = True
    if mass_failure_id:
        details["massFailureId"] = mass_failure_id
    return Event(
        EventKind.STATUS_CHANGED,
        worker.id,
        worker.name,
        "monitor",
        worker.status,
        verdict.status,
        verdict.reason,
        details,
        lease.term,
    )


def _was_stopped(worker: Worker, policy: HealthPolicy) -> bool:
    """Whether an offline worker became so because its agent was stopped on purpose."""
    stopped_at, since = worker.stopped_at, worker.status_changed_at
    return stopped_at is not None and since is not None and timedelta() <= since - stopped_at < policy.heartbeat_timeout


def _settle(context: Context, lease: Lease, those: Sequence[Worker]) -> list[Event]:
    """Let workers flap no more that have been quiet for long enough."""
    quiet = context.health.flap_quiet
    with context.db.transaction() as tx:
        leases.hold(tx, lease, TTL)
        events.lock(tx)
        settled = store.end_flapping(tx, [worker.id for worker in those], quiet)
        reason = f"quiet for {quiet.total_seconds() / 60:g} minutes"
        return events.append(
            tx, *(replace(_of(one, EventKind.SETTLED, reason, lease), to_status=one.status) for one in settled)
        )


def _lift(tx: db.Transaction, lease: Lease, missed_since: datetime) -> list[Event]:
    """Lift the mass failures of which nobody is silent any more."""
    open_failures = store.open_mass_failures(tx)
    if not open_failures:
        return []
    silent = store.with_silent_members(tx, missed_since)
    over = [failure for failure in open_failures if failure.id not in silent]
    if not over:
        return []
    events.lock(tx)
    store.lift_mass_failures(tx, [failure.id for failure in over], "monitor")
    return events.append(tx, *(_recovery(failure, lease) for failure in over))


def _recovery(failure: MassFailure, lease: Lease) -> Event:
    reason = f"all of the {failure.silent} workers that fell silent at once are back, or removed"
    details = LiftedMassFailure(massFailureId=failure.id, region=failure.region, silent=failure.silent)
    return Event(EventKind.MASS_RECOVERY, None, None, "monitor", reason=reason, details=details, term=lease.term)


def _of(worker: Worker, kind: EventKind, reason: str, lease: Lease) -> Event:
    return Event(kind, worker.id, worker.name, "monitor", reason=reason, term=lease.term)


def _next_deadline(snapshot: Snapshot, policy: HealthPolicy) -> float | None:
    """In how many seconds the next worker can run out of time, or a flapping one has settled."""
    waits: list[timedelta] = []
    if oldest := snapshot.survey.oldest_heartbeat_at:
        waits.append(policy.heartbeat_timeout - health.heard_silence(oldest, snapshot.now, snapshot.outages))
    if quiet_since := snapshot.survey.quiet_since:
        waits.append(quiet_since + policy.flap_quiet - snapshot.now)
    return min(waits).total_seconds() if waits else None
