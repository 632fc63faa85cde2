"""Moves of what the swarm places by itself: which services are to leave a node, and the next step of each move.

A service is kept off the node by a constraint, and the swarm starts elsewhere what it had there. Read from the top, the
first line that fits decides about a move that is under way.

    the engine no longer has the service              cancelled: it was removed
    nothing of it is left there
        and nothing of it is on its way, or the       completed
        deadline has passed and something of it runs
    just asked for                                    keep it off the node; failed where the deadline has passed
    it is not kept off the node any more              keep it off again: its owner wrote it anew; failed where the
                                                      deadline has passed
    the deadline has passed, the engine has given     roll back: it may run there again, where what has not moved is
    up, or finds no node for it for some seconds      still running

Every step is safe to repeat, since each begins with what the engine shows.
"""

from collections.abc import Collection, Iterable, Mapping

from skyctl.domain.engine import EngineNode, EngineService, EngineTask, NodeTask, NodeUse, Requirements
from skyctl.domain.states import MigrationState
from skyctl.rules import fit
from skyctl.rules.migrations import GIVEN_UP, Decision, Step
from skyctl.rules.owner_specs import excluded_by
from skyctl.rules.tasks import COMING, ENDED, is_on, runs, trouble

MOST_NAMED = 5
_COMING = ("new", "pending", "allocated", *COMING)


def leaves(tasks: Iterable[NodeTask]) -> list[str]:
    """Return the services, by their ids, of which something on a node is to run."""
    return list(dict.fromkeys(each.service_id for each in tasks if is_wanted(each.task)))


def is_wanted(task: EngineTask) -> bool:
    """Tell whether a container is to run, and has not ended."""
    return task.wanted in ("running", "ready") and task.state not in ENDED


def can_be_kept_off(service: EngineService) -> bool:
    """Tell whether a constraint moves a service off a node: not what runs on every node, nor what is pinned to one."""
    return service.replicas is not None and service.node_id is None


def avoided(service: EngineService, failed: Collection[str]) -> set[str]:
    """Return those nodes of failed workers on which nothing of a service is: nor is it to be started there. What is on
    another one would be moved by that, which is for its own migration to do."""
    return set(failed) - {task.node_id for task in service.tasks if is_wanted(task)}


def nowhere_else(
    service: EngineService, node_id: str | None, nodes: Mapping[str, EngineNode], uses: Mapping[str, NodeUse]
) -> str:
    """Return why no other node of the swarm would ever take a container of a service; empty where one would, once it
    has room."""
    asks = service.requirements
    others = {node.hostname: _never(asks, service, node, uses) for node in nodes.values() if node.id != node_id}
    if not all(others.values()):
        return ""
    whys = "; ".join(f"{name}: {why}" for name, why in sorted(others.items())[:MOST_NAMED])
    return f"no other node would take it ({whys})" if others else "the swarm has no other node"


def waits_for(
    service: EngineService, node_id: str | None, nodes: Mapping[str, EngineNode], uses: Mapping[str, NodeUse]
) -> str:
    """Return why no other node takes a container of a service now; empty where one does."""
    whys = {
        node.hostname: fit.why_not(service.requirements, service.id, node, uses[node.id])
        for node in nodes.values()
        if node.id != node_id
    }
    if not all(whys.values()):
        return ""
    return "no other node takes it: " + "; ".join(f"{name}: {why}" for name, why in sorted(whys.items())[:MOST_NAMED])


def _never(asks: Requirements, service: EngineService, node: EngineNode, uses: Mapping[str, NodeUse]) -> str:
    held = uses[node.id].containers.get(service.id, 0)
    is_full = 0 < asks.max_replicas <= held
    return fit.unsuited(asks, node) or ("it has as many of its containers as a node may" if is_full else "")


def decide(
    state: MigrationState,
    service: EngineService | None,
    node_id: str,
    *,
    node_is_up: bool = True,
    overdue: bool,
    is_stuck: bool,
) -> Decision:
    """Return the step that a move off a node calls for: `overdue` says that its deadline has passed, `is_stuck` that
    the engine has found no node for some seconds. Of a node that is down, what is to run there counts alone: of what is
    not, the engine hears no end."""
    if service is None:
        return Decision(Step.CANCEL, "the service was removed")
    running = [task for task in service.tasks if runs(task)]
    is_coming = any(is_wanted(task) and task.state in _COMING for task in service.tasks)
    left = any(is_on(task, node_id) and (node_is_up or is_wanted(task)) for task in service.tasks)
    if not left and (not is_coming or (overdue and running)):
        return Decision(Step.COMPLETE, "", source_stopped=True)
    said = trouble(service, node_id)
    if state is MigrationState.STARTING or node_id not in excluded_by(service.requirements.constraints):
        return Decision(Step.FAIL, said or "not moved in time") if overdue else Decision(Step.MOVE)
    if overdue:
        return Decision(Step.ROLL_BACK, f"not moved at its deadline: {said or 'the engine gives no reason'}")
    if service.update in GIVEN_UP:
        return Decision(Step.ROLL_BACK, said or service.update_message)
    if is_stuck:
        return Decision(Step.ROLL_BACK, said)
    return Decision(Step.WAIT, said)


def target(service: EngineService, node_id: str) -> EngineTask | None:
    """Return the newest container of a service that runs elsewhere."""
    return next((task for task in reversed(service.tasks) if runs(task) and task.node_id != node_id), None)
