"""Health: from the facts about a worker to its status.

One table, read from the top; the first line that fits decides.

    the agent was stopped on purpose and has not beaten since     offline
    silent for longer than the timeout                            offline
    so silent when it went offline, and not heard since           offline
    an administrator wants it empty                               draining
    never heard from                                              pending
    its engine has failed                                         unhealthy
    memory or disk above its limit                                unhealthy
    CPU above its limit, for so many heartbeats in a row          unhealthy
    else                                                          active

Silence counts only while somebody could have heard the worker: outages of ours are taken out of it.

The engine of a worker that is heard has failed, whether or not it is to be drained, where for longer than the grace
time its agent says that it does not answer, or the swarm says that the worker's node is down. Only the time between the
first and the last such word counts, the last heartbeat's and the last look's: whoever hears nothing grows no older.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from skyctl.domain.cluster import HealthPolicy, Load, Outage, Verdict, Worker
from skyctl.domain.states import WorkerStatus
from skyctl.domain.suspects import Facts


class Excess(NamedTuple):
    """A dimension above its limit, in percent."""

    dimension: str
    percent: float
    limit: float


def assess(worker: Facts, now: datetime, outages: Sequence[Outage], policy: HealthPolicy) -> Verdict:
    """The status that the facts call for at `now`, and the figure that decides. The outages are `merged` ones."""
    heard_at = worker.last_heartbeat_at
    if stopped_on_purpose(worker):
        return Verdict(WorkerStatus.OFFLINE, "its agent was stopped on purpose")
    if heard_at is not None and heard_at < cutoff(now, outages, policy.heartbeat_timeout):
        silence = heard_silence(heard_at, now, outages).total_seconds()
        return Verdict(
            WorkerStatus.OFFLINE, f"silent for {round(silence, 1):g} s > {policy.heartbeat_timeout.total_seconds():g} s"
        )
    if _is_lost(worker, policy):
        return Verdict(WorkerStatus.OFFLINE, "not heard since it went offline")
    failure = engine_failure(worker, policy)
    if is_to_drain(worker):
        wanted = f"to be drained: {worker.drain_reason or 'an administrator wants it empty'}"
        return Verdict(WorkerStatus.DRAINING, failure or wanted, engine_failed=bool(failure))
    if heard_at is None:
        return Verdict(WorkerStatus.PENDING, "never heard from")
    if failure:
        return Verdict(WorkerStatus.UNHEALTHY, failure, engine_failed=True)
    if excesses(worker, policy):
        return Verdict(WorkerStatus.UNHEALTHY, figures(worker, policy))
    return Verdict(WorkerStatus.ACTIVE, f"heard from, and within its limits{_busy(worker, policy)}")


def is_news_of(worker: Facts, verdict: Verdict) -> bool:
    """Tell whether the verdict is another one than stands: another status than is stored or was concluded, or the
    worker's engine has failed, or is back."""
    return {worker.status, worker.concluded_status} != {verdict.status} or _is_news_of_engine(worker, verdict)


def is_to_be_told(worker: Facts, verdict: Verdict) -> bool:
    """Tell whether the verdict is a change for people, too, and no mark that somebody else has left: the panel's API
    writes the status that it takes for the present one, whoever concluded another."""
    can_fail = verdict.status in (WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING)
    return verdict.status is not worker.known_status or (can_fail and _is_news_of_engine(worker, verdict))


def _is_news_of_engine(worker: Facts, verdict: Verdict) -> bool:
    return verdict.engine_failed is not (worker.engine_failed_at is not None)


def stopped_on_purpose(worker: Facts) -> bool:
    """Tell whether the agent was stopped on purpose and has not beaten since."""
    heard_at = worker.last_heartbeat_at
    return worker.stopped_at is not None and (heard_at is None or heard_at <= worker.stopped_at)


def engine_failure(worker: Facts, policy: HealthPolicy) -> str:
    """Return why the worker's engine counts as failed; empty where it does not."""
    heard_at, grace = worker.last_heartbeat_at, policy.engine_grace
    away, said_at = worker.engine_away_since, worker.engine_away_seen_at
    if away is not None and said_at is not None and said_at == heard_at and said_at - away > grace:
        why = f": {worker.engine_trouble}" if worker.engine_trouble else ""
        return _too_long("its engine does not answer", said_at - away, grace) + why
    down, seen_at = worker.node_down_since, worker.node_down_seen_at
    if heard_at is not None and down is not None and seen_at is not None and seen_at - down > grace:
        is_node = worker.swarm_node_id or worker.swarm_node_claim
        what = "the swarm says that its node is down" if is_node else "its host has left the swarm"
        return _too_long(what, seen_at - down, grace)
    return ""


def _too_long(what: str, lasted: timedelta, grace: timedelta) -> str:
    return f"{what}, for {round(lasted.total_seconds(), 1):g} s > {grace.total_seconds():g} s"


def _is_lost(worker: Facts, policy: HealthPolicy) -> bool:
    """Tell whether the worker had been silent for the timeout when it went offline, and has not beaten since: an outage
    of ours that begins in the moment before takes from its silence, but brings nobody back."""
    heard_at, since = worker.last_heartbeat_at, worker.status_changed_at
    if worker.known_status is not WorkerStatus.OFFLINE or heard_at is None or since is None:
        return False
    return heard_at < since - policy.heartbeat_timeout


def is_to_drain(worker: Facts) -> bool:
    """Tell whether an administrator wants the worker empty; the panel says so by the status alone."""
    by_status = worker.status is WorkerStatus.DRAINING and worker.undrained_at is None
    return worker.drain_requested_at is not None or by_status


def merged(outages: Iterable[Outage]) -> list[Outage]:
    """The same outages in order, those that overlap made one."""
    separate: list[Outage] = []
    for outage in sorted(outages):
        if separate and outage.started_at <= separate[-1].ended_at:
            separate[-1] = Outage(separate[-1].started_at, max(separate[-1].ended_at, outage.ended_at))
        else:
            separate.append(outage)
    return separate


def heard_silence(since: datetime, now: datetime, outages: Iterable[Outage]) -> timedelta:
    """The time from `since` to `now` in which a heartbeat would have been heard. The outages are `merged` ones."""
    deaf = (min(now, outage.ended_at) - max(since, outage.started_at) for outage in outages)
    return now - since - sum((max(timedelta(), duration) for duration in deaf), timedelta())


def cutoff(now: datetime, outages: Sequence[Outage], timeout: timedelta) -> datetime:
    """The time since which exactly the timeout of heard silence has passed: who beat last before it is silent for too
    long."""
    left, at = timeout, now
    for outage in reversed(outages):
        heard = at - min(outage.ended_at, at)
        if heard > left:
            break
        left -= heard
        at = min(at, outage.started_at)
    return at - left


def excesses(worker: Facts, policy: HealthPolicy) -> list[Excess]:
    """The dimensions above their limits: memory and disk at once, CPU where it lasts."""
    load = worker.load
    dimensions = (
        Excess("CPU", load.cpu_percent if _cpu_lasts(worker, policy) else 0, policy.cpu_percent),
        Excess("memory", load.memory_percent, policy.memory_percent),
        Excess("disk", load.disk_percent, policy.disk_percent),
    )
    return [dimension for dimension in dimensions if dimension.percent > dimension.limit]


def high_heartbeats(worker: Facts, policy: HealthPolicy) -> int:
    """How many heartbeats in a row, the last among them, had their CPU above its limit. Where only the last is known,
    as of a worker that the panel's API hears, it counts for as many as it takes."""
    if not worker.recent_cpu:
        return policy.cpu_heartbeats if worker.load.cpu_percent > policy.cpu_percent else 0
    return len(list(takewhile(lambda percent: percent > policy.cpu_percent, worker.recent_cpu)))


def _busy(worker: Facts, policy: HealthPolicy) -> str:
    high, percent = high_heartbeats(worker, policy), worker.load.cpu_percent
    beats = f"{high} of {policy.cpu_heartbeats} heartbeats in a row"
    return f" (CPU {percent:g} % > {policy.cpu_percent:g} % for {beats})" if high else ""


def _cpu_lasts(worker: Facts, policy: HealthPolicy) -> bool:
    """A worker that is exhausted stays so until a heartbeat is within the limit: after a gap they are counted anew."""
    high, is_exhausted = high_heartbeats(worker, policy), worker.known_status is WorkerStatus.UNHEALTHY
    return high >= policy.cpu_heartbeats or (high > 0 and is_exhausted and worker.engine_failed_at is None)


def lately(worker: Worker, policy: HealthPolicy) -> Load:
    """The load with the average CPU of the last heartbeats: one busy moment says little. Those that lack until one
    could count as exhausted count as idle, so that the first does not stand for all."""
    recent = worker.recent_cpu
    if not recent:
        return worker.load
    return worker.load._replace(cpu_percent=sum(recent) / max(len(recent), policy.cpu_heartbeats))


def figures(worker: Facts, policy: HealthPolicy) -> str:
    """The dimensions above their limits, in words."""
    return ", ".join(f"{name} {percent:g} % > {limit:g} %" for name, percent, limit in excesses(worker, policy))


def is_news(status: WorkerStatus, *, exhausted: bool, engine_fails: bool, engine_failed: bool) -> bool:
    """Tell whether a heartbeat calls for a look at once: what stands, the status and whether the engine has failed,
    would not be concluded from it."""
    if engine_fails is not engine_failed:
        return True
    if status is WorkerStatus.DRAINING:
        return False
    bad = engine_fails or exhausted
    return status is not (WorkerStatus.UNHEALTHY if bad else WorkerStatus.ACTIVE)


def outlook(worker: Worker, now: datetime, outages: Sequence[Outage], policy: HealthPolicy) -> list[str]:
    """List the changes that would alter the status that `assess` gives, one sentence each."""
    status, heard_at = assess(worker, now, outages, policy).status, worker.last_heartbeat_at
    if status is WorkerStatus.OFFLINE:
        return ["a heartbeat brings it back"]
    changes = []
    if heard_at is not None:
        left = (policy.heartbeat_timeout - heard_silence(heard_at, now, outages)).total_seconds()
        changes.append(f"offline, if it stays silent for {max(0.0, left):.0f} s more")
    if status is WorkerStatus.DRAINING:
        return [*changes, "back in service, by `skyctl workers undrain`"]
    if status is WorkerStatus.PENDING:
        return ["active, by its first heartbeat"]
    if engine_failure(worker, policy):
        return [*changes, "active, once its engine answers and its node is up"]
    if status is WorkerStatus.UNHEALTHY:
        most = " and ".join(f"{name} ≤ {limit:g} %" for name, _, limit in excesses(worker, policy))
        return [*changes, f"active, by a heartbeat with {most}"]
    if worker.engine_away_since or worker.node_down_since:
        changes.append("unhealthy, if its engine stays away")
    return [*changes, f"unhealthy, by a heartbeat with {_too_much(worker, policy)}"]


def _too_much(worker: Worker, policy: HealthPolicy) -> str:
    """What of a worker's next heartbeats would make it unhealthy."""
    cpu, memory = f"CPU > {policy.cpu_percent:g} %", f"memory > {policy.memory_percent:g} %"
    disk, beats = f"disk > {policy.disk_percent:g} %", policy.cpu_heartbeats - high_heartbeats(worker, policy)
    if beats <= 1:
        return f"{cpu}, {memory} or {disk}"
    return f"{memory} or {disk}, or by {beats} in a row with {cpu}"
