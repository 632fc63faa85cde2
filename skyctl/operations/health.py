"""The monitor's story: from the facts about every worker to its status, each change with its event in one transaction."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from skyctl.errors import DatabaseRefused
from skyctl.model import Event, Lease, Limits, MassFailure, Outage, Silence, Verdict, Worker, WorkerStatus
from skyctl.operations import presence
from skyctl.operations.leadership import TTL
from skyctl.operations.world import World
from skyctl.rules import failures, health
from skyctl.store import db, events, monitors
from skyctl.store import health as store

LOOK_AGAIN_SECONDS = 1.0
SAID_NAMES = 100


class Poison(NamedTuple):
    """A worker that the database does not let be changed, and why."""

    worker: Worker
    reason: str


@dataclass(frozen=True, slots=True)
class Pass:
    """What one look at every worker gave: the events, the workers that could not be changed, in how many seconds something can
    change by the passing of time alone, and the workers whose containers are now to be moved."""

    events: Sequence[Event]
    poison: Sequence[Poison]
    next_deadline_seconds: float | None
    failed: Sequence[UUID]


class Scene(NamedTuple):
    """What a pass sees: the time, the outages of ours that are to be taken out of any silence, who may have to change."""

    now: datetime
    outages: Sequence[Outage]
    survey: store.Survey
    suspects: Sequence[Worker]


def check(world: World, lease: Lease, passed_over: Collection[UUID] = ()) -> Pass:
    """Look at every worker once, and change the statuses that the facts no longer call for, but of those `passed_over`.

    Raises LostLead, DatabaseUnavailable.
    """
    scene = _look(world, passed_over)
    verdicts = [(worker, health.assess(worker, scene.now, scene.outages, world.limits)) for worker in scene.suspects]
    due = [(worker, verdict) for worker, verdict in verdicts if verdict.status is not worker.status]
    written = _declare_mass_failures(world, lease, scene, due)
    concluded, poison = _conclude(world, lease, due)
    written += concluded
    with world.db.transaction() as tx:
        monitors.hold(tx, lease, TTL)
        written += _settle(tx, world.limits, scene, lease)
        written += _lift(tx, lease)
        monitors.note_pass(tx, lease)
    changed = [event for event in written if event.kind == "status_changed"]
    waiting = len(due) > len(changed) + len(poison)
    deadline = LOOK_AGAIN_SECONDS if waiting else _next_deadline(scene, world.limits)
    return Pass(
        written, poison, deadline, [event.worker_id for event in changed if event.worker_id and _is_failure(event)]
    )


def _look(world: World, passed_over: Collection[UUID]) -> Scene:
    with world.db.transaction() as tx:
        now, outages = db.now(tx), presence.outages(tx)
        survey = store.survey(tx, world.limits, health.cutoff(now, outages, world.limits.heartbeat_timeout))
        suspects = (
            store.fetch(tx, [each for each in survey.suspects if each not in passed_over]) if survey.suspects else []
        )
        return Scene(now, outages, survey, suspects)


def _declare_mass_failures(
    world: World, lease: Lease, scene: Scene, due: Iterable[tuple[Worker, Verdict]]
) -> list[Event]:
    """Where workers went silent, see whether many more did: those that missed two heartbeats count already."""
    silent = [
        worker
        for worker, verdict in due
        if verdict.status is WorkerStatus.OFFLINE and not health.stopped_on_purpose(worker)
    ]
    if not silent:
        return []
    limits, now, outages = world.limits, scene.now, scene.outages
    missed = health.cutoff(now, outages, min(2 * limits.heartbeat_interval, limits.heartbeat_timeout))
    not_before = max(worker.last_heartbeat_at or now for worker in silent) - limits.mass_window
    with world.db.transaction() as tx:
        monitors.hold(tx, lease, TTL)
        events.lock(tx)
        found = [
            each
            for each in _by_region(store.silences(tx, missed, not_before))
            if failures.is_mass_failure(each, limits)
        ]
        whole = [each for each in found if each.region is None]
        declared = [_mass_failure(store.declare_mass_failure(tx, each), each, lease) for each in whole or found]
        return events.append(tx, *declared)


def _by_region(silences: Sequence[Silence]) -> list[Silence]:
    """The regions that have a name, and before them, without one, all workers together."""
    names = [name for each in silences for name in each.names]
    everybody = Silence(
        None, sum(each.silent for each in silences), sum(each.schedulable for each in silences), sorted(names)
    )
    return [everybody, *(each for each in silences if each.region is not None)]


def _mass_failure(number: int, silence: Silence, lease: Lease) -> Event:
    details = {
        "massFailureId": number, "region": silence.region, "silent": silence.silent, "schedulable": silence.schedulable,
        "workers": list(silence.names[:SAID_NAMES]),
    }  # fmt: skip
    reason = f"{silence.silent} of {silence.schedulable} workers fell silent"
    return Event("mass_failure", None, None, "monitor", reason=reason, details=details, term=lease.term)


def _conclude(world: World, lease: Lease, due: Sequence[tuple[Worker, Verdict]]) -> tuple[list[Event], list[Poison]]:
    """Change statuses, with their events. Where the database refuses a row, each half for itself, until only that one fails."""
    if not due:
        return [], []
    try:
        return _change(world, lease, due), []
    except DatabaseRefused as error:
        if len(due) == 1:
            return [], [Poison(due[0][0], error.message)]
        middle = len(due) // 2
        first, second = _conclude(world, lease, due[:middle]), _conclude(world, lease, due[middle:])
        return first[0] + second[0], first[1] + second[1]


def _change(world: World, lease: Lease, due: Sequence[tuple[Worker, Verdict]]) -> list[Event]:
    with world.db.transaction() as tx:
        monitors.hold(tx, lease, TTL)
        events.lock(tx)
        standing = store.open_mass_failures(tx)
        membership = {worker.id: _membership(worker, verdict, standing) for worker, verdict in due}
        wanted = [store.Change(one.id, one.status, verdict.status, membership[one.id]) for one, verdict in due]
        changed = store.change(tx, wanted)
        those = [each for each in due if each[0].id in changed]
        written = events.append(tx, *(_changed(*each, membership[each[0].id], lease, world.limits) for each in those))
        return written + _note_flapping(tx, world.limits, changed, lease)


def _note_flapping(tx: db.Transaction, limits: Limits, changed: Iterable[UUID], lease: Lease) -> list[Event]:
    counts = events.transitions(tx, changed, failures.HEALTH, limits.flap_window)
    often = [worker_id for worker_id, count in counts.items() if failures.is_flapping(count, limits)]
    begun = store.begin_flapping(tx, often) if often else []
    said = f"{{}} changes within {limits.flap_window.total_seconds() / 60:g} minutes, now {{}}"
    return events.append(tx, *(_of(one, "flapping", said.format(counts[one.id], one.status), lease) for one in begun))


def _membership(worker: Worker, verdict: Verdict, open_failures: Iterable[MassFailure]) -> int | None:
    """The mass failure that a worker which goes silent belongs to, if any: it beat last before that was detected."""
    heard_at = worker.last_heartbeat_at
    if verdict.status is not WorkerStatus.OFFLINE or heard_at is None or health.stopped_on_purpose(worker):
        return None
    region = worker.metadata.get("region")
    return next((one.id for one in open_failures if one.region in (None, region) and heard_at <= one.detected_at), None)


def _changed(worker: Worker, verdict: Verdict, mass_failure_id: int | None, lease: Lease, limits: Limits) -> Event:
    """The event of a change, with the figures that decided it."""
    heard_at, load = worker.last_heartbeat_at, worker.load
    details: dict[str, object] = {"lastHeartbeatAt": heard_at.isoformat() if heard_at else None}
    if verdict.status is WorkerStatus.UNHEALTHY:
        details["load"] = {
            "cpuPercent": load.cpu_percent,
            "memoryPercent": load.memory_percent,
            "diskPercent": load.disk_percent,
        }
    if health.stopped_on_purpose(worker) or (worker.status is WorkerStatus.OFFLINE and _was_stopped(worker, limits)):
        details["onPurpose"] = True
    if number := mass_failure_id or worker.mass_failure_id:
        details["massFailureId"] = number
    return Event(
        "status_changed",
        worker.id,
        worker.name,
        "monitor",
        worker.status,
        verdict.status,
        verdict.reason,
        details,
        lease.term,
    )


def _was_stopped(worker: Worker, limits: Limits) -> bool:
    """Whether an offline worker became so because its agent was stopped on purpose."""
    stopped_at, since = worker.stopped_at, worker.status_changed_at
    return stopped_at is not None and since is not None and timedelta() <= since - stopped_at < limits.heartbeat_timeout


def _settle(tx: db.Transaction, limits: Limits, scene: Scene, lease: Lease) -> list[Event]:
    """Let workers flap no more that have been quiet for long enough."""
    if scene.survey.quiet_since is None or not failures.has_settled(scene.survey.quiet_since, scene.now, limits):
        return []
    events.lock(tx)
    settled = store.end_flapping(tx, scene.now - limits.flap_quiet)
    reason = f"quiet for {limits.flap_quiet.total_seconds() / 60:g} minutes"
    return events.append(
        tx, *(replace(_of(worker, "settled", reason, lease), to_status=worker.status) for worker in settled)
    )


def _lift(tx: db.Transaction, lease: Lease) -> list[Event]:
    """Lift the mass failures of which nobody is silent any more."""
    standing = store.open_mass_failures(tx)
    if not standing:
        return []
    members = store.mass_failures_with_members(tx)
    over = [failure for failure in standing if failure.id not in members]
    if not over:
        return []
    events.lock(tx)
    store.lift_mass_failures(tx, [failure.id for failure in over], "monitor")
    return events.append(tx, *(_recovery(failure, lease) for failure in over))


def _recovery(failure: MassFailure, lease: Lease) -> Event:
    reason = f"all of the {failure.silent} workers that fell silent at once are back, or removed"
    details = {"massFailureId": failure.id, "region": failure.region, "silent": failure.silent}
    return Event("mass_recovery", None, None, "monitor", reason=reason, details=details, term=lease.term)


def _of(worker: Worker, kind: str, reason: str, lease: Lease) -> Event:
    return Event(kind, worker.id, worker.name, "monitor", reason=reason, term=lease.term)


def _is_failure(event: Event) -> bool:
    """Whether the worker's containers are to be moved: it went silent, and not with many others."""
    return event.to_status is WorkerStatus.OFFLINE and not {"onPurpose", "massFailureId"} & set(event.details)


def _next_deadline(scene: Scene, limits: Limits) -> float | None:
    """In how many seconds the next worker can run out of time, or a flapping one has settled."""
    waits: list[timedelta] = []
    if oldest := scene.survey.oldest_heartbeat_at:
        waits.append(limits.heartbeat_timeout - health.heard_silence(oldest, scene.now, scene.outages))
    if quiet_since := scene.survey.quiet_since:
        waits.append(quiet_since + limits.flap_quiet - scene.now)
    return min(waits).total_seconds() if waits else None
