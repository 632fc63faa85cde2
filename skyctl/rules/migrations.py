"""Migrations: what the engine shows of one, and the next step that this calls for.

Read from the top, the first line that fits decides.

    the engine no longer has the service              it has failed, and is not tried again
    pinned neither to the source nor to the target    somebody moved it by hand: cancelled
    pinned to the target
        just asked for                                verifying
        the new container runs (and is healthy)
            the old one, too, the engine having       roll back: it would let both run for good
            given up before
            the old one has stopped, or nobody can    completed
            know, its node being down
            the deadline has passed                   completed; the old one is watched until it has stopped
        the engine has given up, or the deadline      roll back: pin it to the source again, where the old container
        has passed                                    still runs, since the new one is started before it is stopped
    pinned to the source
        just asked for, before the deadline           ask the engine to move it
        else                                          it has failed

Every step is safe to repeat, since each begins with what the engine shows and not with what was done before.
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from skyctl.domain.engine import EngineService, Observation
from skyctl.domain.states import MigrationState
from skyctl.rules.tasks import DEPLOYMENT_LABEL, has_stopped, runs, trouble

WAITING = (MigrationState.AWAITING_APPROVAL, MigrationState.HELD, MigrationState.QUEUED, MigrationState.FAILED)
UNDER_WAY = (MigrationState.STARTING, MigrationState.VERIFYING)
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
    """The nodes that a migration goes between (`source` is None where that has left the swarm), and the deployment that
    its order makes the service's."""

    source: str | None
    target: str
    order: str


def decide(state: MigrationState, observation: Observation, service_id: str, pins: Pins, *, overdue: bool) -> Decision:
    """The step that a migration calls for: `service_id` is the engine's, `overdue` says that its deadline has
    passed."""
    service = observation.services.get(service_id)
    if service is None:
        return Decision(Step.GIVE_UP, "the engine no longer has the service: deploy it again")
    if service.node_id == pins.target:
        if state is MigrationState.STARTING:
            return Decision(Step.VERIFY)
        return _on_target(service, observation, pins.source, pins.target, overdue=overdue)
    if _is_elsewhere(service, observation, pins):
        return Decision(
            Step.CANCEL, f"somebody has pinned it to another node meanwhile ({_name(observation, service.node_id)})"
        )
    if state is MigrationState.STARTING and not overdue:
        return Decision(Step.MOVE)
    return Decision(Step.FAIL, trouble(service, pins.target) or "rolled back: the new container did not run in time")


def _is_elsewhere(service: EngineService, observation: Observation, pins: Pins) -> bool:
    """Tell whether somebody else has pinned the service: to a node that there is, and not by an order of this
    migration."""
    is_ours = service.labels.get(DEPLOYMENT_LABEL) == pins.order
    return service.node_id in observation.nodes and service.node_id != pins.source and not is_ours


def _on_target(
    service: EngineService, observation: Observation, source: str | None, target: str, *, overdue: bool
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
    return Decision(Step.WAIT, trouble(service, target))


def is_overdue(deadline_at: datetime | None, now: datetime) -> bool:
    """Tell whether a migration's own deadline has passed."""
    return deadline_at is not None and deadline_at <= now


def _name(observation: Observation, node_id: str | None) -> str:
    return observation.nodes[node_id].hostname if node_id in observation.nodes and node_id else "-"
