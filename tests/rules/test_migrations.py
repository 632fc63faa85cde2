"""The state machine of migrations: what it may do, whatever the engine shows."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineNode, EngineService, EngineTask, Observation
from skyctl.domain.states import EndpointMode, MigrationState
from skyctl.rules import migrations as rules
from skyctl.rules.migrations import Step

SOURCE, TARGET, OTHER = "source", "target", "other"
PINS = rules.Pins(SOURCE, TARGET, "")
STATES = ["pending", "preparing", "starting", "running", "failed", "rejected", "shutdown", "complete", "orphaned"]

tasks = st.builds(
    EngineTask,
    id=st.just("task"),
    node_id=st.sampled_from([SOURCE, TARGET, OTHER, None]),
    state=st.sampled_from(STATES),
    wanted=st.sampled_from(["running", "ready", "shutdown", "remove"]),
    error=st.sampled_from(["", "no such image"]),
    container_id=st.none(),
    deployment_id=st.just(""),
    created_at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
)
shown = st.builds(
    EngineService,
    id=st.just("service"),
    name=st.just("service"),
    version=st.just(1),
    image=st.just("app:1"),
    labels=st.just({}),
    node_id=st.sampled_from([SOURCE, TARGET, OTHER, None]),
    replicas=st.just(1),
    endpoint_mode=st.just(EndpointMode.VIP),
    limits=st.just(Capacity()),
    update=st.sampled_from(["", "updating", "paused", "completed", "rollback_completed"]),
    tasks=st.lists(tasks, max_size=4).map(tuple),
)


@given(
    service=st.none() | shown,
    state=st.sampled_from(rules.UNDER_WAY),
    overdue=st.booleans(),
    up=st.fixed_dictionaries({SOURCE: st.booleans(), TARGET: st.booleans(), OTHER: st.booleans()}),
)
def test_no_step_is_ever_wrong(
    service: EngineService | None, state: MigrationState, up: dict[str, bool], *, overdue: bool
) -> None:
    nodes = {name: EngineNode(name, name, is_up=is_up, availability="active") for name, is_up in up.items()}
    seen = Observation(nodes, {} if service is None else {"service": service})
    step, reason, source_stopped, _ = rules.decide(state, seen, "service", PINS, overdue=overdue)
    if service is None:
        assert step is Step.GIVE_UP
        return
    on_target = [task for task in service.tasks if task.node_id == TARGET and task.state == task.wanted == "running"]
    left = [task for task in service.tasks if task.node_id == SOURCE and task.state in STATES[:4]]
    match step:
        case Step.COMPLETE:
            assert on_target
            assert service.node_id == TARGET
            assert source_stopped is not bool(left)
            assert source_stopped or overdue or not up[SOURCE], "a worker that is heard must have stopped its container"
        case Step.MOVE:
            assert service.node_id in (SOURCE, None) or not up[OTHER], "a node that is down was chosen by nobody"
            assert state is MigrationState.STARTING
            assert not overdue
        case Step.ROLL_BACK:
            assert service.node_id == TARGET
            assert not on_target or (left and up[SOURCE])
            assert overdue or service.update in rules.GIVEN_UP
        case Step.CANCEL:
            assert service.node_id == OTHER
            assert up[OTHER]
        case Step.FAIL:
            assert service.node_id in (SOURCE, None) or not up[OTHER]
            assert reason
        case Step.VERIFY:
            assert (service.node_id, state) == (TARGET, MigrationState.STARTING)
        case Step.WAIT:
            assert service.node_id == TARGET
            assert not overdue
        case Step.GIVE_UP:
            raise AssertionError("the engine has it")
