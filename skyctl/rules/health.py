"""Health: from the facts about a worker to its status (mission document, Health Detection).

One table, read from the top; the first line that fits decides.

    the agent was stopped on purpose and has not beaten since     offline
    silent for longer than the timeout                            offline
    an administrator wants it empty                               draining
    never heard from                                              pending
    CPU, memory or disk above its limit                           unhealthy
    else                                                          active
"""

from datetime import datetime, timedelta

from skyctl.model import Limits, Load, Verdict, Worker, WorkerStatus


def assess(worker: Worker, now: datetime, limits: Limits) -> Verdict:
    """The status that the facts call for at `now`, and the figure that decides."""
    heard_at = worker.last_heartbeat_at
    if worker.stopped_at is not None and (heard_at is None or heard_at <= worker.stopped_at):
        return Verdict(WorkerStatus.OFFLINE, "its agent was stopped on purpose")
    if heard_at is not None and now - heard_at > limits.heartbeat_timeout:
        return Verdict(WorkerStatus.OFFLINE, _silence(now - heard_at, limits))
    if worker.drain_requested_at is not None or worker.status is WorkerStatus.DRAINING:
        return Verdict(WorkerStatus.DRAINING, "an administrator wants it empty")
    if heard_at is None:
        return Verdict(WorkerStatus.PENDING, "never heard from")
    if is_exhausted(worker.load, limits):
        return Verdict(WorkerStatus.UNHEALTHY, _excess(worker.load, limits))
    return Verdict(WorkerStatus.ACTIVE, "heard from, and within its limits")


def is_exhausted(load: Load, limits: Limits) -> bool:
    """Whether a dimension is above its limit."""
    return (
        load.cpu_percent > limits.cpu_percent
        or load.memory_percent > limits.memory_percent
        or load.disk_percent > limits.disk_percent
    )


def is_news(status: WorkerStatus, load: Load, limits: Limits) -> bool:
    """Whether a heartbeat calls for a look at once: the stored status would not be concluded from it."""
    if status is WorkerStatus.DRAINING:
        return False
    return status is not (WorkerStatus.UNHEALTHY if is_exhausted(load, limits) else WorkerStatus.ACTIVE)


def _silence(silence: timedelta, limits: Limits) -> str:
    return f"silent for {silence.total_seconds():.0f} s > {limits.heartbeat_timeout.total_seconds():g} s"


def _excess(load: Load, limits: Limits) -> str:
    dimensions = (
        ("CPU", load.cpu_percent, limits.cpu_percent),
        ("memory", load.memory_percent, limits.memory_percent),
        ("disk", load.disk_percent, limits.disk_percent),
    )
    return ", ".join(f"{name} {value:g} % > {limit:g} %" for name, value, limit in dimensions if value > limit)
