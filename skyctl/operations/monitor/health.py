"""Conclude every worker's status from the facts about it, each change with its event in one transaction."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar
from uuid import UUID

from skyctl.domain.cluster import Event, HealthPolicy, Outage, Verdict, Worker
from skyctl.domain.errors import DatabaseRefused
from skyctl.domain.event_details import Settled, StatusChange
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.suspects import Facts, Suspect
from skyctl.operations.monitor import mass_failures
from skyctl.operations.monitor.sight import Sight
from skyctl.operations.shared.clock import Watch
from skyctl.operations.shared.leadership import Term
from skyctl.operations.shared.outages import known_outages
from skyctl.rules import flapping, health
from skyctl.store import db, events, leases
from skyctl.store import health as store
from skyctl.store import suspects as stored_suspects

CHECK_AGAIN_SECONDS = 1.0
MOST_AT_ONCE = 5_000
PART = 1_000

T = TypeVar("T")


class Poison(NamedTuple):
    """A worker that the database refuses to change, and why."""

    worker: Facts
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
    settled: Sequence[Worker]
    has_mass_failure: bool


class Conclusions(NamedTuple):
    """What came of the suspects: the events, the workers that could not be changed, and those of whom people are still
    to be told."""

    events: Sequence[Event]
    poison: Sequence[Poison]
    left: Sequence[UUID]


def check(term: Term, watch: Watch, passed_over: Collection[UUID] = (), sight: Sight | None = None) -> HealthPass:
    """Check every worker that may need it, except those to be passed over, and change the statuses that the facts no
    longer call for; where the database's clock was set since the last look, what was seen by it does not count. Without
    a `sight` of passes before every worker is looked at.

    Raises LostLead, DatabaseUnavailable.
    """
    sight = sight or Sight()
    try:
        return _check(term, watch, passed_over, sight)
    except BaseException:
        sight.forget()  # what was seen was not concluded from
        raise


def _check(term: Term, watch: Watch, passed_over: Collection[UUID], sight: Sight) -> HealthPass:
    policy = term.context.health
    snapshot = _take_snapshot(term, passed_over, sight)
    clock_events = watch.follow(term)
    if watch.was_set:
        sight.forget()
        snapshot = _take_snapshot(term, passed_over, sight)
    concluded = _conclude(term, snapshot)
    sight.name(concluded.left)
    quiet = [
        worker
        for worker in snapshot.settled
        if worker.status_changed_at and flapping.has_settled(worker.status_changed_at, snapshot.now, policy)
    ]
    settled, more_poison = _in_parts(quiet, lambda part: _settle(term, part), lambda worker: worker)
    lifted = mass_failures.lift(term, _missed_since(snapshot, policy)) if snapshot.has_mass_failure else []
    with term.writing() as tx:
        leases.note_pass(tx, term.lease)
    return HealthPass(
        events=[*clock_events, *concluded.events, *settled, *lifted],
        poison=[*concluded.poison, *more_poison],
        next_deadline_seconds=CHECK_AGAIN_SECONDS if concluded.left else _next_deadline(snapshot, policy, sight),
    )


def _take_snapshot(term: Term, passed_over: Collection[UUID], sight: Sight) -> Snapshot:
    policy = term.context.health
    with term.reading() as tx:
        now, outages = db.now(tx), known_outages(tx)
    silent_since = health.cutoff(now, outages, policy.heartbeat_timeout)
    survey = sight.look(term.reading_on(), term.number, policy, now, silent_since, passed_over)
    with term.reading() as tx:
        settled = store.fetch(tx, survey.settled[:MOST_AT_ONCE]) if survey.settled else []
        return Snapshot(now, outages, survey, settled, bool(store.open_mass_failures(tx)))


def _conclude(term: Term, snapshot: Snapshot) -> Conclusions:
    """Assess the suspects, some at a time, and change the statuses that the facts no longer call for."""
    policy, suspects = term.context.health, snapshot.survey.suspects
    missed_since = _missed_since(snapshot, policy)
    written: list[Event] = []
    poison: list[Poison] = []
    left: list[UUID] = []
    reading = term.reading_on()
    for start in range(0, len(suspects), MOST_AT_ONCE):
        with reading() as tx:
            some = stored_suspects.fetch(tx, suspects[start : start + MOST_AT_ONCE])
        verdicts = [(worker, health.assess(worker, snapshot.now, snapshot.outages, policy)) for worker in some]
        due = [(worker, verdict) for worker, verdict in verdicts if health.is_news_of(worker, verdict)]
        written += mass_failures.declare(term, snapshot.now, missed_since, due)
        concluded, refused = _in_parts(due, lambda part: _change(term, part), lambda pair: pair[0])
        done = {event.worker_id for event in concluded} | {each.worker.id for each in refused}
        left += [
            worker.id for worker, verdict in due if health.is_to_be_told(worker, verdict) and worker.id not in done
        ]
        written += concluded
        poison += refused
    return Conclusions(written, poison, left)


def _in_parts(
    items: Sequence[T], write: Callable[[Sequence[T]], list[Event]], worker_of: Callable[[T], Facts]
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


def _missed_since(snapshot: Snapshot, policy: HealthPolicy) -> datetime:
    """Return the time since which two heartbeats were missed: a worker that was last heard before may be on its way
    offline."""
    return health.cutoff(snapshot.now, snapshot.outages, min(2 * policy.heartbeat_interval, policy.heartbeat_timeout))


def _change(term: Term, due: Sequence[tuple[Suspect, Verdict]]) -> list[Event]:
    policy = term.context.health
    with term.recording() as tx:
        known = mass_failures.Open(tx)
        judged = [(worker, verdict, known.membership(worker, verdict)) for worker, verdict in due]
        wanted = [
            store.Change(
                worker.id,
                worker.status,
                worker.last_heartbeat_at,
                verdict.status,
                mass_failure_id if mass_failures.fails(verdict) else None,
                verdict.engine_failed,
            )
            for worker, verdict, mass_failure_id in judged
        ]
        changed = store.change(tx, wanted, policy)
        concluded = [
            _status_changed(worker, verdict, mass_failure_id, term)
            for worker, verdict, mass_failure_id in judged
            if worker.id in changed and health.is_to_be_told(worker, verdict)
        ]
        return events.append(tx, *concluded) + _note_flapping(tx, policy, changed, term)


def _note_flapping(tx: db.Transaction, policy: HealthPolicy, changed: Iterable[UUID], term: Term) -> list[Event]:
    counts = events.transitions(tx, changed, flapping.HEALTH, policy.flap_window, policy.flap_transitions)
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


def _status_changed(worker: Suspect, verdict: Verdict, mass_failure_id: int | None, term: Term) -> Event:
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
        worker.known_status is WorkerStatus.OFFLINE and _was_stopped(worker, term.context.health)
    ):
        details["onPurpose"] = True
    if mass_failure_id:
        details["massFailureId"] = mass_failure_id
    return Event(
        EventKind.STATUS_CHANGED,
        worker.id,
        worker.name,
        "monitor",
        worker.known_status,
        verdict.status,
        verdict.reason,
        details,
        term.number,
    )


def _was_stopped(worker: Suspect, policy: HealthPolicy) -> bool:
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


def _worker_event(worker: Worker, kind: EventKind, reason: str, term: Term) -> Event:
    return Event(kind, worker.id, worker.name, "monitor", reason=reason, term=term.number)


def _next_deadline(snapshot: Snapshot, policy: HealthPolicy, sight: Sight) -> float | None:
    """Return in how many seconds the next worker can run out of time, or a flapping one has settled, or more is to be
    looked at."""
    waits = [pause] if (pause := sight.pause(policy)) else []
    if oldest := snapshot.survey.oldest_heartbeat_at:
        waits.append(policy.heartbeat_timeout - health.heard_silence(oldest, snapshot.now, snapshot.outages))
    if quiet_since := snapshot.survey.quiet_since:
        waits.append(quiet_since + policy.flap_quiet - snapshot.now)
    return min(waits).total_seconds() if waits else None
