"""Rescheduling: what the swarm starts elsewhere by itself once a node is down, and how far that has come.

Nothing is ordered for it. Read from the top, the first line that fits decides.

    the engine no longer has the service              cancelled: it was removed
    none of it is to run any more                     cancelled
    as many as are to run do, off the node            completed
    the node is up, and as many run with its own      cancelled: it runs there again
    somebody has cancelled it                         cancelled, whatever the swarm does
    the deadline has passed                           failed, by the engine's words, and not tried again: the swarm goes
                                                      on trying
"""

from collections.abc import Iterable

from skyctl.domain.engine import EngineNode, EngineService, NodeTask
from skyctl.domain.states import MigrationCause
from skyctl.domain.workloads import Migration
from skyctl.rules import local_state
from skyctl.rules.exclusions import can_be_kept_off, is_wanted
from skyctl.rules.migrations import Decision, Step
from skyctl.rules.tasks import ENDED, is_on, runs

NODE_IS_DOWN = "its node is down: the swarm starts it elsewhere"


def is_lost(node: EngineNode | None) -> bool:
    """Tell whether the swarm starts elsewhere what a node had: it is down, or has left the swarm."""
    return node is None or not node.is_up


def left(tasks: Iterable[NodeTask]) -> list[str]:
    """Return the services, by their ids, that a node had when it was lost. The swarm wants none of them there any
    more, and hears of no end."""
    return list(dict.fromkeys(each.service_id for each in tasks if each.task.state not in ENDED))


def is_rescheduled(service: EngineService) -> bool:
    """Tell whether the swarm starts a service elsewhere: not what runs on every node, nor what is pinned to one."""
    return can_be_kept_off(service) and bool(service.replicas)


def is_of_swarm(migration: Migration) -> bool:
    """Tell whether a migration is of what the swarm places by itself, off a worker that has failed."""
    return migration.service_id is None and migration.cause is MigrationCause.WORKER_FAILED


def reason(service: EngineService, node_id: str) -> str:
    """Say what the swarm does with a service whose node it has lost, and what is lost by that."""
    behind = local_state.left_behind(local_state.leaving(service, node_id))
    return "; ".join(part for part in (NODE_IS_DOWN, behind) if part)


def decide(
    service: EngineService | None, node_id: str, *, node_is_up: bool, overdue: bool, is_cancelled: bool = False
) -> Decision:
    """Return what has become of a service that a node had when it was lost: `overdue` says that its deadline has
    passed."""
    if service is None:
        return Decision(Step.CANCEL, "the service was removed")
    if not service.replicas:
        return Decision(Step.CANCEL, "none of it is to run any more")
    running = [task.node_id for task in service.tasks if runs(task)]
    if len(running) - running.count(node_id) >= service.replicas:
        behind = local_state.left_behind(local_state.leaving(service, node_id))
        return Decision(Step.COMPLETE, behind, source_stopped=has_stopped(service, node_id))
    if node_is_up and len(running) >= service.replicas:
        return Decision(Step.CANCEL, "it runs there again: its node is back")
    if is_cancelled:
        return Decision(Step.FAIL)
    said = trouble(service, node_id)
    if overdue:
        return Decision(Step.GIVE_UP, f"not running elsewhere at its deadline: {said or 'the engine gives no reason'}")
    return Decision(Step.WAIT, said or reason(service, node_id))


def trouble(service: EngineService, node_id: str) -> str:
    """Return the engine's last error about what it starts elsewhere since the node had something of it, of one that is
    to run before one that has ended; empty for none."""
    tasks = list(service.tasks)
    lost = [place for place, task in enumerate(tasks) if task.node_id == node_id]
    since = tasks[lost[-1] + 1 :] if lost else tasks
    errors = [task.error for task in sorted(since, key=is_wanted) if task.error]
    return errors[-1] if errors else ""


def has_stopped(service: EngineService, node_id: str) -> bool:
    """Tell whether nothing is left on a node of what is not to run there."""
    return not any(is_on(task, node_id) and not is_wanted(task) for task in service.tasks)
