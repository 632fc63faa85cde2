"""Migrations: what the engine shows of one, and the next step that this calls for.

Read from the top, the first line that fits decides.

    the engine no longer has the service              it has failed, and is not tried again
    pinned neither to the source nor to the target,   somebody moved it by hand: cancelled
    but to a node that is up
    pinned to the target
        just asked for                                verifying
        the new container runs (and is healthy)
            the old one, too, the engine having       roll back: it would let both run for good
            given up before
            the old one has stopped, or nobody can    completed
            know, its node being down
            the deadline has passed                   completed; the old one is watched until it has stopped
        the engine has given up or finds no node, or  roll back: pin it to the source again, where the old container
        the deadline has passed                       still runs, since the new one is started before it is stopped
    pinned to the source
        just asked for, before the deadline           ask the engine to move it
        else                                          it has failed

Every step is safe to repeat, since each begins with what the engine shows and not with what was done before.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from skyctl.domain.engine import EngineNode, EngineService, Observation
from skyctl.domain.states import MigrationState
from skyctl.domain.workloads import Migration
from skyctl.rules.tasks import DEPLOYMENT_LABEL, has_stopped, is_on, runs, trouble

WAITING = (MigrationState.AWAITING_APPROVAL, MigrationState.HELD, MigrationState.QUEUED, MigrationState.FAILED)
UNDER_WAY = (MigrationState.STARTING, MigrationState.VERIFYING)
NO_NODE = "no suitable node"
STUCK = timedelta(seconds=5)
PATIENCE = 6
"""So many times its own timeout a migration may take while its container is on its way."""
GIVEN_UP = ("paused", "rollback_started", "rollback_paused", "rollback_completed")


class Step(StrEnum):
    """The next step of a migration that is under way."""

    WAIT = "wait"
    MOVE = "move"
    VERIFY = "verify"
    COMPLETE = "complete"
    ROLL_BACK = "roll back"
    FAIL = "fail"
    GIVE_UP = "give up"
    CANCEL = "cancel"


class Decision(NamedTuple):
    """A step and its reason; on completion, whether the old container is known to have stopped, and the new one's
    id."""

    step: Step
    reason: str = ""
    source_stopped: bool = False
    container_id: str | None = None


class Pins(NamedTuple):
    """The nodes that a migration goes between (`source` is None where that has left the swarm), and the label of the
    deployment that is moved: every order of a migration writes another one."""

    source: str | None
    target: str
    moved: str


def decide(
    state: MigrationState,
    observation: Observation,
    service_id: str,
    pins: Pins,
    *,
    overdue: bool,
    is_stuck: bool = False,
) -> Decision:
    """The step that a migration calls for: `service_id` is the engine's, `overdue` says that its deadline has passed,
    `is_stuck` that the engine has found no node for some seconds."""
    service = observation.services.get(service_id)
    if service is None:
        return Decision(Step.GIVE_UP, "the engine no longer has the service: deploy it again")
    if service.node_id == pins.target:
        if state is MigrationState.STARTING:
            return Decision(Step.VERIFY)
        return _on_target(service, observation, pins.source, pins.target, overdue=overdue, is_stuck=is_stuck)
    if _is_elsewhere(service, observation, pins):
        return Decision(
            Step.CANCEL, f"somebody has pinned it to another node meanwhile ({_name(observation, service.node_id)})"
        )
    if state is MigrationState.STARTING and not overdue:
        return Decision(Step.MOVE)
    return Decision(Step.FAIL, trouble(service, pins.target) or "rolled back: the new container did not run in time")


def _is_elsewhere(service: EngineService, observation: Observation, pins: Pins) -> bool:
    """Tell whether somebody else has pinned the service: to a node that is up, and not by an order of this migration,
    which may be one of an attempt before this. A host that joined again has left the node that it was."""
    is_ours = service.labels.get(DEPLOYMENT_LABEL, "") != pins.moved
    node = observation.nodes.get(service.node_id or "")
    return node is not None and node.is_up and node.id != pins.source and not is_ours


def _on_target(
    service: EngineService, observation: Observation, source: str | None, target: str, *, overdue: bool, is_stuck: bool
) -> Decision:
    running = next((task for task in service.tasks if task.node_id == target and runs(task)), None)
    if running:
        stopped, node = has_stopped(service, source), observation.nodes.get(source or "")
        if not stopped and node and node.is_up and service.update in GIVEN_UP:
            return Decision(Step.ROLL_BACK, "it came to run only after the engine had given up")
        if stopped or node is None or not node.is_up or overdue:
            return Decision(Step.COMPLETE, "", source_stopped=stopped, container_id=running.container_id)
        return Decision(Step.WAIT, "the new container runs, the old one is being stopped")
    if overdue:
        return Decision(Step.ROLL_BACK, f"not running at its deadline: {trouble(service, target) or 'no reason given'}")
    if service.update in GIVEN_UP:
        return Decision(Step.ROLL_BACK, trouble(service, target) or service.update_message)
    if is_stuck:
        return Decision(Step.ROLL_BACK, trouble(service, None))
    return Decision(Step.WAIT, trouble(service, target))


def is_stuck(service: EngineService | None, reason: str, since: datetime, now: datetime) -> bool:
    """Tell whether the engine has said for some seconds that it finds no node: `reason` was said `since` then."""
    return service is not None and NO_NODE in reason and trouble(service, None) == reason and now - since >= STUCK


def may_go_back(service: EngineService, source: EngineNode) -> bool:
    """Tell whether a service can run at its source again: it still does, or the source takes new containers. Where its
    old container was stopped first on a node that takes nothing, there is nothing to go back to."""
    is_there = any(is_on(task, source.id) for task in service.tasks)
    return source.is_up and (is_there or source.availability == "active")


def is_of_no_account(migration: Migration, reason: str) -> bool:
    """Tell whether an attempt does not count: the engine found no node for it, at a worker where that is new."""
    is_new = migration.target_worker_id is not None and migration.target_worker_id not in migration.avoid
    return NO_NODE in reason and is_new and not migration.is_hurried


def is_overdue(deadline_at: datetime | None, now: datetime, timeout: timedelta, *, makes_progress: bool) -> bool:
    """Tell whether a migration's own deadline has passed. What is on its way, as an image of gigabytes, or a container
    that is healthy only after a minute, has some times the `timeout`: slow is not stuck."""
    if deadline_at is None or deadline_at > now:
        return False
    return not makes_progress or now - deadline_at >= (PATIENCE - 1) * timeout


def _name(observation: Observation, node_id: str | None) -> str:
    return observation.nodes[node_id].hostname if node_id in observation.nodes and node_id else "-"
