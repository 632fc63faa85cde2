"""Restarts: whether the swarm goes on starting a service's container, and whether that container keeps ending."""

from datetime import datetime, timedelta
from typing import NamedTuple

from skyctl.domain.engine import EngineService, EngineTask, RestartPolicy
from skyctl.rules.tasks import runs

# So many ends of its own are no accident any more, where no container lasted longer than that on average.
ENDS = 3
WITHIN = timedelta(minutes=6)
# A container that has run for so long, longer than those did, no longer keeps ending.
SETTLED = timedelta(minutes=3)
# Docker's words for a task that ended by itself, or could not begin: not by an order, and not with its node.
_BY_ITSELF = ("complete", "failed", "rejected")


class Noted(NamedTuple):
    """What was noted of a service when it was last looked at: its newest task, when that was first seen, and why it is
    said to keep ending (empty where it is not)."""

    task: str | None = None
    seen_at: datetime | None = None
    reason: str = ""


def gives_up(policy: RestartPolicy) -> str:
    """Return after what the swarm starts no other container of a service, though one is to run; empty where it always
    does."""
    if policy.condition == "none":
        return "its container is never started again"
    ends = []
    if policy.condition == "on-failure":
        ends.append("once its container ends with exit code 0")
    if policy.attempts:
        times = "time" if policy.attempts == 1 else "times"
        over = f"within {policy.window_seconds:.0f} s" if policy.window_seconds else "in its whole life"
        ends.append(f"once it was started again {policy.attempts} {times} {over}")
    return f"it is not started again {', or '.join(ends)}" if ends else ""


def last_end(service: EngineService) -> str:
    """Return the engine's words about the last container that ended by itself; empty where it shows none."""
    ended = _ended(service)
    return _words(ended[-1]) if ended else ""


def keeps_ending(service: EngineService, created_as: str = "") -> str:
    """Return how the containers of a service end again and again, in words; empty where they do not.

    `created_as` is the deployment whose containers count; empty for any. What counts are the engine's times alone: that
    its container has run for long since then, only who looks twice can know (`look`).
    """
    ended = [task for task in _ended(service) if created_as in ("", task.deployment_id)]
    last = ended[-ENDS * max(1, service.replicas or 1) :]
    if len(last) < ENDS * max(1, service.replicas or 1) or service.replicas == 0:
        return ""
    took = service.tasks[-1].created_at - last[0].created_at
    if took > WITHIN:
        return ""
    return (
        f"its container ended {len(last)} times within {took.total_seconds():.0f} s, the last time: {_words(last[-1])}"
    )


def look(service: EngineService, created_as: str, before: Noted, now: datetime) -> Noted:
    """Return what is to be noted of a service by what the engine shows now of the containers that were created as this
    deployment (empty: of any).

    What is seen for the first time is only watched: its ends may be long ago, and its container run since then.
    """
    words = keeps_ending(service, created_as)
    if not words:
        is_over = not before.reason or service.replicas == 0 or any(runs(task) for task in service.tasks)
        return Noted() if is_over else before
    newest, seen_at = service.tasks[-1].id, before.seen_at
    if before.task == newest:
        return before._replace(reason="") if has_settled(service, before, now) else before
    is_watched = seen_at is not None and timedelta() <= now - seen_at <= WITHIN
    return Noted(newest, now, words if is_watched else "")


def has_settled(service: EngineService, noted: Noted, now: datetime) -> bool:
    """Tell whether the newest container of a service runs, and has for long."""
    is_same = bool(service.tasks) and noted.task == service.tasks[-1].id
    return is_same and noted.seen_at is not None and now - noted.seen_at > SETTLED and runs(service.tasks[-1])


def _ended(service: EngineService) -> list[EngineTask]:
    """The tasks that ended by themselves where the service is pinned, the oldest first."""
    here = (service.node_id, None) if service.node_id else None
    return [task for task in service.tasks if task.state in _BY_ITSELF and (here is None or task.node_id in here)]


def _words(task: EngineTask) -> str:
    code = "" if task.exit_code is None else f" with exit code {task.exit_code}"
    return task.error or f"its container has ended{code}"
