"""The reasons of a worker's status as they are printed. No I/O."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats, workers, workloads
from skyctl.domain.cluster import Diagnosis, Event, MassFailure, Worker
from skyctl.domain.text import printable, reference
from skyctl.domain.workloads import Migration, Service

MOST_NAMES = 10


def diagnosis(facts: Diagnosis, containers: Sequence[Service], moves: Sequence[Migration]) -> list[Any]:
    """Everything that bears on a worker's status, in the order of a person's questions; then its containers, and why
    those that are to be moved have not been."""
    return [formats.details([*_rows(facts), *_containers(containers), *_moves(moves, facts.worker, facts.read_at)])]


def _containers(containers: Sequence[Service]) -> Iterator[tuple[str, Any]]:
    names = [service.spec.name for service in containers]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    yield "Containers", f"{len(names)}: {', '.join(names[:MOST_NAMES])}{more}" if names else "none of ours"


def _moves(moves: Sequence[Migration], worker: Worker, now: datetime) -> Iterator[tuple[str, Any]]:
    for number, move in enumerate(moves):
        away = move.source_worker_id == worker.id
        other = move.target_worker_name if away else move.source_worker_name
        way = f"{'to' if away else 'from'} {printable(other)}, " if other else ""
        why = workloads.reason(move, now)
        line = Text.assemble(
            f"{printable(move.service_name)}: {way}", workloads.state_text(move.state), f": {why}" if why else ""
        )
        yield "Moving" if number == 0 else "", line


def _rows(facts: Diagnosis) -> Iterator[tuple[str, Any]]:
    worker, now = facts.worker, facts.read_at
    yield "Worker", f"{worker.name} ({worker.id})"
    yield "Status", _status(worker, now)
    yield "Decided", _decision(facts.decided_by, now) if facts.decided_by else _undecided(worker)
    if facts.decided_by:
        yield from (("  sample", f"{key}: {_plain(value)}") for key, value in facts.decided_by.details.items())
    yield "Now", _conclusion(facts)
    yield "  heartbeat", _heartbeat(facts)
    yield from _loads(facts)
    yield "  drain", _drain(worker, now)
    if worker.swarm_node_trouble:
        remedy = f"where it is this worker's node all the same: skyctl workers confirm {worker.id}"
        yield "  swarm node", f"{workers.node_text(worker)}; nothing is placed on it; {remedy}"
    yield "  flapping", _since(worker.flapping_since, now, "takes nothing new until it was quiet for a while")
    if worker.token_revoked_at:
        again = f"skyctl workers install-script --worker {reference(worker.name, worker.id)}"
        revoked = f"revoked {workers.revocation(worker, now)}: its heartbeats are refused"
        yield "  token", f"{revoked}; to let its host in again: {again}"
    if upgrade := workers.upgrade_text(worker, now):
        yield "  agent", printable(upgrade)
    if worker.engine_away_since or worker.node_down_since:
        yield "  engine", printable(workers.engine_text(worker, now))
    if worker.stopped_at:
        yield "  stopped", f"its agent was stopped on purpose {_when(worker.stopped_at, now)}"
    if facts.mass_failure:
        yield "  mass failure", _mass_failure(facts.mass_failure, now)
    yield from (("Would change" if n == 0 else "", change) for n, change in enumerate(facts.outlook))


def _status(worker: Worker, now: datetime) -> Text:
    since = f", since {_when(worker.status_changed_at, now)}" if worker.status_changed_at else ""
    return Text.assemble(workers.standing_text(worker), since)


def _decision(event: Event, now: datetime) -> Text:
    states = [formats.status_text(status) for status in (event.from_status, event.to_status) if status]
    term = f", term {event.term}" if event.term else ""
    by = f" ({_when(event.at, now)}, by {printable(event.actor)}{term}, event {event.seq})"
    return Text.assemble(Text(" to ").join(states), f": {printable(event.reason)}", (by, "dim"))


def _undecided(worker: Worker) -> str:
    if worker.status_changed_at:
        return "before the log began"
    return "by no monitor yet: it is as it was invited, or as the panel wrote it"


def _conclusion(facts: Diagnosis) -> Text:
    verdict = facts.verdict
    text = Text.assemble(formats.status_text(verdict.status), f": {printable(verdict.reason)}")
    if facts.is_settled:
        return text
    passed_at = facts.monitor_seen_at
    looked = (
        f"its last pass was {formats.ago(passed_at, facts.read_at)}"
        if passed_at
        else "none has run yet: run `skyctl monitor`"
    )
    return text.append(f" (but the monitor has not looked yet; {looked})", style="yellow")


def _heartbeat(facts: Diagnosis) -> str:
    heard_at = facts.worker.last_heartbeat_at
    if heard_at is None or facts.silence is None:
        return "never"
    silence = f"silent for {_seconds(facts.silence)}, of at most {_seconds(facts.policy.heartbeat_timeout)}"
    ours = f", without {_seconds(facts.deaf)} in which no `serve` could hear it" if facts.deaf else ""
    return f"{_when(heard_at, facts.read_at)}: {silence}{ours}"


def _loads(facts: Diagnosis) -> Iterator[tuple[str, Any]]:
    load, policy = facts.worker.load, facts.policy
    if facts.worker.last_heartbeat_at is None:
        return
    figures = (
        ("  CPU", load.cpu_percent, policy.cpu_percent),
        ("  memory", load.memory_percent, policy.memory_percent),
        ("  disk", load.disk_percent, policy.disk_percent),
    )
    for name, percent, limit in figures:
        verb, style = ("above", "red") if percent > limit else ("within", "green")
        yield name, Text.assemble((f"{percent:g} %", style), f", {verb} its limit of {limit:g} %")


def _drain(worker: Worker, now: datetime) -> str:
    why = f": {worker.drain_reason}" if worker.drain_reason else ""
    if worker.undrained_at:
        return f"taken back {_when(worker.undrained_at, now)}"
    return f"asked {_when(worker.drain_requested_at, now)}{why}" if worker.drain_requested_at else "not asked"


def _since(at: datetime | None, now: datetime, meaning: str) -> str:
    return f"since {_when(at, now)}: {meaning}" if at else "no"


def _mass_failure(failure: MassFailure, now: datetime) -> str:
    what = f"{failure.silent} of {failure.schedulable} workers failed at once {_when(failure.detected_at, now)}"
    if failure.lifted_at:
        return f"{what}; lifted {_when(failure.lifted_at, now)}"
    return f"{what}; nothing is moved off them automatically until they return"


def _when(at: datetime | None, now: datetime) -> str:
    return f"{formats.ago(at, now)} ({at.isoformat(timespec='seconds')})" if at else "-"


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.0f} s"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
