"""Conclude every worker's status from the facts about it, each change with its event in one transaction."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar
from uuid import UUID

from skyctl.domain.cluster import Event, HealthPolicy, MassFailure, Outage, Silence, Verdict, Worker
from skyctl.domain.errors import DatabaseRefused
from skyctl.domain.events import EventKind, LiftedMassFailure, Settled, SilentWorkers, StatusChange
from skyctl.domain.states import WorkerStatus
from skyctl.operations.shared.clock import Watch
from skyctl.operations.shared.leadership import Term
from skyctl.operations.shared.outages import known_outages
from skyctl.rules import flapping, health, mass_failure
from skyctl.store import db, events, leases
from skyctl.store import health as store

CHECK_AGAIN_SECONDS = 1.0
MOST_AT_ONCE = 20_000
PART = 1_000
MOST_NAMES = 100

T = TypeVar("T")


class Poison(NamedTuple):
    """A worker that the database refuses to change, and why."""

    worker: Worker
    reason: str


@dataclass(frozen=True, slots=True)
class HealthPass:
    """The result of one check of every worker: the events, the workers that could not be changed, and in how many
    seconds the passing of time alone can change something."""

    events: Sequence[Event]
    poison: Sequence[Poison]
    next_deadline_seconds: float | None


class Snapshot(NamedTuple):
    """The facts that a check begins with: the database's time; the outages of ours, which count towards no worker's
    silence; the workers whose status may have to change; those that may have stopped flapping; whether a mass failure
    is open."""

    now: datetime
    outages: Sequence[Outage]
    survey: store.Survey
    suspects: Sequence[Worker]
    settled: Sequence[Worker]
    has_mass_failure: bool

    @property
    def survey_is_cut(self) -> bool:
        """Tell whether there were more suspects than one pass takes."""
        return len(self.survey.suspects) > len(self.suspects)


def check(term: Term, watch: Watch, passed_over: Collection[UUID] = ()) -> HealthPass:
    """Check every worker once, except those to be passed over, and change the statuses that the facts no longer call
    for; where the database's clock was set since the last look, what was seen by it does not count.

    Raises LostLead, DatabaseUnavailable.
    """
    policy = term.context.health
    snapshot = _take_snapshot(term, passed_over)
    clock_events = watch.follow(term)
    if watch.was_set:
        snapshot = _take_snapshot(term, passed_over)
    verdicts = [(worker, health.assess(worker, snapshot.now, snapshot.outages, policy)) for worker in snapshot.suspects]
    due = [(worker, verdict) for worker, verdict in verdicts if health.is_news_of(worker, verdict)]
    declared = _declare_mass_failures(term, snapshot, due)
    concluded, poison = _in_parts(due, lambda part: _change(term, part), lambda pair: pair[0])
    quiet = [
        worker
        for worker in snapshot.settled
        if worker.status_changed_at and flapping.has_settled(worker.status_changed_at, snapshot.now, policy)
    ]
    settled, more_poison = _in_parts(quiet, lambda part: _settle(term, part), lambda worker: worker)
    lifted = _lift(term, _missed_since(snapshot, policy)) if snapshot.has_mass_failure else []
    with term.writing() as tx:
        leases.note_pass(tx, term.lease)
    changed = [event for event in concluded if event.kind == EventKind.STATUS_CHANGED]
    told = [worker for worker, verdict in due if _is_to_be_told(worker, verdict)]
    waiting = snapshot.survey_is_cut or len(told) > len(changed) + len(poison)
    return HealthPass(
        events=[*clock_events, *declared, *concluded, *settled, *lifted],
        poison=[*poison, *more_poison],
        next_deadline_seconds=CHECK_AGAIN_SECONDS if waiting else _next_deadline(snapshot, policy),
    )


def _take_snapshot(term: Term, passed_over: Collection[UUID]) -> Snapshot:
    policy = term.context.health
    with term.reading() as tx:
        now, outages = db.now(tx), known_outages(tx)
        silent_since = health.cutoff(now, outages, policy.heartbeat_timeout)
        survey = store.survey(tx, policy, silent_since, passed_over)
        suspects, settled = (
            store.fetch(tx, ids[:MOST_AT_ONCE]) if ids else [] for ids in (survey.suspects, survey.settled)
        )
        return Snapshot(now, outages, survey, suspects, settled, bool(store.open_mass_failures(tx)))


def _in_parts(
    items: Sequence[T], write: Callable[[Sequence[T]], list[Event]], worker_of: Callable[[T], Worker]
) -> tuple[list[Event], list[Poison]]:
    """Write items in parts that are small enough for no transaction to take long; return the events.

    A part that the database refuses is halved again and again, until only the refused items are left as poison.
    """
    written: list[Event] = []
    poison: list[Poison] = []
    parts = [items[start : start + PART] for start in range(0, len(items), PART)][::-1]
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


def _declare_mass_failures(term: Term, snapshot: Snapshot, due: Iterable[tuple[Worker, Verdict]]) -> list[Event]:
    """Declare a mass failure where workers went silent, or lost their engines, and many others did too; these count as
    soon as they missed two heartbeats, or their engines are away."""
    failing = [
        _failing_since(worker, verdict) or snapshot.now
        for worker, verdict in due
        if _fails(verdict) and not health.stopped_on_purpose(worker)
    ]
    if not failing:
        return []
    policy, missed_since = term.context.health, _missed_since(snapshot, term.context.health)
    not_before = max(failing) - policy.mass_window
    with term.recording() as tx:
        failures = [
            silence
            for silence in _by_region(store.silences(tx, missed_since, not_before))
            if mass_failure.is_mass_failure(silence, policy)
        ]
        whole = [silence for silence in failures if silence.region is None]
        declared = [
            _mass_failure(store.declare_mass_failure(tx, silence), silence, term) for silence in whole or failures
        ]
        return events.append(tx, *declared)


def _missed_since(snapshot: Snapshot, policy: HealthPolicy) -> datetime:
    """Return the time since which two heartbeats were missed: a worker that was last heard before may be on its way
    offline."""
    return health.cutoff(snapshot.now, snapshot.outages, min(2 * policy.heartbeat_interval, policy.heartbeat_timeout))


def _fails(verdict: Verdict) -> bool:
    return verdict.status is WorkerStatus.OFFLINE or verdict.engine_failed


def _failing_since(worker: Worker, verdict: Verdict) -> datetime | None:
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


def _change(term: Term, due: Sequence[tuple[Worker, Verdict]]) -> list[Event]:
    policy = term.context.health
    with term.recording() as tx:
        open_failures = store.open_mass_failures(tx)
        membership = {worker.id: _membership(worker, verdict, open_failures) for worker, verdict in due}
        wanted = [
            store.Change(
                worker.id,
                worker.status,
                worker.last_heartbeat_at,
                verdict.status,
                membership[worker.id] if _fails(verdict) else None,
                verdict.engine_failed,
            )
            for worker, verdict in due
        ]
        changed = store.change(tx, wanted, policy)
        concluded = [
            _status_changed(worker, verdict, membership[worker.id], term)
            for worker, verdict in due
            if worker.id in changed and _is_to_be_told(worker, verdict)
        ]
        return events.append(tx, *concluded) + _note_flapping(tx, policy, changed, term)


def _is_to_be_told(worker: Worker, verdict: Verdict) -> bool:
    """Tell whether a change is one for people, too, and no mark that somebody else has left."""
    can_fail = verdict.status in (WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING)
    return verdict.status is not worker.status or can_fail


def _note_flapping(tx: db.Transaction, policy: HealthPolicy, changed: Iterable[UUID], term: Term) -> list[Event]:
    counts = events.transitions(tx, changed, flapping.HEALTH, policy.flap_window)
    often = [worker_id for worker_id, count in counts.items() if flapping.is_flapping(count, policy)]
    flappers = store.begin_flapping(tx, often) if often else []
    within = f"changes within {policy.flap_window.total_seconds() / 60:g} minutes"
    return events.append(
        tx,
        *(
            _worker_event(worker, EventKind.FLAPPING, f"{counts[worker.id]} {within}, now {worker.status}", term)
            for worker in flappers
        ),
    )


def _membership(worker: Worker, verdict: Verdict, open_failures: Iterable[MassFailure]) -> int | None:
    """Return the open mass failure that a worker belongs to: one that fails, and began to before the failure was
    detected; or one that belongs to it already, and fails in another way now or comes back."""
    since, its = _failing_since(worker, verdict), {failure.id for failure in open_failures} & {worker.mass_failure_id}
    if its or not _fails(verdict):
        return next(iter(its), None)
    if since is None or health.stopped_on_purpose(worker):
        return None
    region = worker.metadata.get("region")
    return next(
        (failure.id for failure in open_failures if failure.region in (None, region) and since <= failure.detected_at),
        None,
    )


def _status_changed(worker: Worker, verdict: Verdict, mass_failure_id: int | None, term: Term) -> Event:
    """Return the event of a changed status, with the figures that decided it."""
    heard_at, load = worker.last_heartbeat_at, worker.load
    details = StatusChange(lastHeartbeatAt=heard_at.isoformat() if heard_at else None)
    if verdict.engine_failed:
        details["engineFailed"] = True
    elif verdict.status is WorkerStatus.UNHEALTHY:
        details["load"] = {
            "cpuPercent": load.cpu_percent,
            "memoryPercent": load.memory_percent,
            "diskPercent": load.disk_percent,
        }
    if health.stopped_on_purpose(worker) or (
        worker.status is WorkerStatus.OFFLINE and _was_stopped(worker, term.context.health)
    ):
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
        term.number,
    )


def _was_stopped(worker: Worker, policy: HealthPolicy) -> bool:
    """Tell whether an offline worker is so because its agent was stopped on purpose."""
    stopped_at, since = worker.stopped_at, worker.status_changed_at
    return stopped_at is not None and since is not None and timedelta() <= since - stopped_at < policy.heartbeat_timeout


def _settle(term: Term, quiet: Sequence[Worker]) -> list[Event]:
    """Note that workers flap no longer which have been quiet for long enough."""
    pause = term.context.health.flap_quiet
    with term.recording() as tx:
        settled = store.end_flapping(tx, [worker.id for worker in quiet], pause)
        reason = f"quiet for {pause.total_seconds() / 60:g} minutes"
        return events.append(
            tx,
            *(
                replace(
                    _worker_event(worker, EventKind.SETTLED, reason, term),
                    to_status=worker.status,
                    details=Settled(engineFailed=True) if worker.engine_failed_at else Settled(),
                )
                for worker in settled
            ),
        )


def _lift(term: Term, missed_since: datetime) -> list[Event]:
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


def _worker_event(worker: Worker, kind: EventKind, reason: str, term: Term) -> Event:
    return Event(kind, worker.id, worker.name, "monitor", reason=reason, term=term.number)


def _next_deadline(snapshot: Snapshot, policy: HealthPolicy) -> float | None:
    """Return in how many seconds the next worker can run out of time, or a flapping one has settled."""
    waits: list[timedelta] = []
    if oldest := snapshot.survey.oldest_heartbeat_at:
        waits.append(policy.heartbeat_timeout - health.heard_silence(oldest, snapshot.now, snapshot.outages))
    if quiet_since := snapshot.survey.quiet_since:
        waits.append(quiet_since + policy.flap_quiet - snapshot.now)
    return min(waits).total_seconds() if waits else None
