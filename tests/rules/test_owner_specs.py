"""Whatever a service's document holds: what a move changes of it is given back, and nothing else is touched."""

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skyctl.rules import owner_specs as rules
from skyctl.rules.tasks import DEPLOYMENT_LABEL
from skyctl.swarm import specs

Document = dict[str, Any]
NODE, OTHER = "n1", "n2"
OURS = {"skypanel.service.id": "s", DEPLOYMENT_LABEL: "d", "skypanel.organization.id": "o"}

texts = st.text("abcdefgh-._/ ", min_size=1, max_size=8)
amounts = st.integers(0, 10**12)
labels = st.dictionaries(texts, texts, max_size=3)
scalars = st.none() | st.booleans() | amounts | texts
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2))
constraints = st.lists(
    st.sampled_from(
        ["node.role == worker", "node.labels.zone==a", "node.hostname != w9", "node.id!=n9", "NODE.ID != n8"]
    ),
    unique=True,
    max_size=3,
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    """A document with any of these fields, and perhaps with one that nobody knows."""
    return st.fixed_dictionaries({}, optional={**fields, "Unheard": anything})


updates = some(
    Parallelism=st.integers(0, 4),
    Delay=st.sampled_from([0, 10**10]),
    FailureAction=st.sampled_from(["pause", "continue", "rollback"]),
    Monitor=amounts,
    MaxFailureRatio=st.sampled_from([0, 0.3, 1]),
    Order=st.sampled_from(["start-first", "stop-first"]),
)
resources = some(NanoCPUs=amounts, MemoryBytes=amounts, Pids=amounts, GenericResources=st.lists(anything, max_size=2))
mounts = some(
    Type=st.sampled_from(["bind", "volume", "tmpfs", "npipe", "cluster", "image"]),
    Source=texts,
    Target=texts,
    ReadOnly=st.booleans(),
    VolumeOptions=anything,
    BindOptions=anything,
)
containers = some(
    Image=texts,
    Labels=labels,
    Command=st.lists(texts, max_size=2),
    Args=st.lists(texts, max_size=2),
    Env=st.lists(texts, max_size=2),
    Mounts=st.lists(mounts, max_size=2),
    StopGracePeriod=amounts,
    Healthcheck=anything,
    Hosts=st.lists(texts, max_size=1),
    DNSConfig=anything,
    Secrets=st.lists(anything, max_size=1),
    Configs=st.lists(anything, max_size=1),
    Privileges=anything,
    Init=st.booleans(),
    Sysctls=labels,
    Ulimits=st.lists(anything, max_size=1),
    CapabilityAdd=st.lists(texts, max_size=1),
)
placements = some(
    Constraints=constraints,
    Preferences=st.lists(anything, max_size=1),
    MaxReplicas=st.integers(0, 3),
    Platforms=st.lists(anything, max_size=1),
)
templates = some(
    ContainerSpec=containers,
    PluginSpec=anything,
    Resources=some(Limits=resources, Reservations=resources),
    RestartPolicy=some(Condition=texts, Delay=amounts, MaxAttempts=amounts, Window=amounts),
    Placement=placements,
    Networks=st.lists(some(Target=texts, Aliases=st.lists(texts, max_size=2)), max_size=2),
    LogDriver=anything,
    ForceUpdate=st.integers(0, 5),
    Runtime=texts,
)
modes = st.sampled_from([{"Replicated": {"Replicas": 3}}, {"Replicated": {}}, {"Global": {}}, {"ReplicatedJob": {}}])
documents = st.builds(
    lambda known, more: {**more, **known},
    st.fixed_dictionaries({"Name": texts, "TaskTemplate": templates, "Mode": modes}),
    some(Labels=labels, UpdateConfig=updates, RollbackConfig=updates, EndpointSpec=anything, Networks=anything),
)
orders = st.sampled_from([rules.START_FIRST, rules.STOP_FIRST])


@given(documents, orders)
def test_what_was_kept_off_a_node_is_as_its_owner_left_it(spec: Document, order: str) -> None:
    before = deepcopy(spec)
    moved = rules.excluding(spec, NODE, order)
    assert rules.excluded(moved)[-1] == NODE
    assert moved["UpdateConfig"]["Order"] == order
    assert without(moved) == without(spec), "but the constraint and the way of updating, nothing is changed"
    assert not rules.is_changed(moved, spec, [NODE])
    assert_same(rules.given_back(moved, spec, [NODE]), spec)
    assert_same(rules.given_back(rules.including(moved, NODE), spec, [NODE]), spec)
    assert spec == before, "the document itself is left alone"


def test_what_the_engine_writes_by_itself_into_an_update_is_not_taken_for_the_owners() -> None:
    """It shows the ratio of failures of each update, also where none was given; and an update without parallelism, in
    place of none, would be one of all containers at once."""
    spec = {"Name": "web", "TaskTemplate": {}, "Mode": {"Replicated": {}}}
    moved = rules.excluding(spec, NODE, rules.START_FIRST)
    shown = {**moved, "UpdateConfig": {**moved["UpdateConfig"], "MaxFailureRatio": 0}}
    assert_same(rules.given_back(shown, spec, [NODE]), spec)


@given(documents, st.lists(st.tuples(orders, st.sampled_from([NODE, OTHER])), max_size=4))
def test_what_was_adopted_and_moved_and_released_is_as_its_owner_left_it(
    spec: Document, moves: list[tuple[str, str]]
) -> None:
    is_one = spec["Mode"] == {"Replicated": {}}
    now = rules.adopted(spec, OURS, NODE if is_one else None)
    for order, node in moves:
        label = {DEPLOYMENT_LABEL: node}
        now = specs.moved(now, node, label, order) if is_one else rules.excluding(now, node, order)
        assert not rules.is_changed(now, spec, [NODE, OTHER])
        now = rules.given_back(now, spec, [NODE, OTHER])
        assert now.get("UpdateConfig") == spec.get("UpdateConfig")
    assert_same(rules.released(now, spec, [NODE, OTHER]), spec)


@given(documents, documents, orders)
def test_what_its_owner_writes_meanwhile_is_never_overwritten(spec: Document, other: Document, order: str) -> None:
    """As `docker stack deploy`, which writes all of it anew."""
    assert said(rules.given_back(other, spec, [NODE])) == said(other)
    moved = rules.excluding(spec, NODE, order)
    image = {**moved["TaskTemplate"].get("ContainerSpec", {}), "Image": "his:2"}
    his = {**moved, "TaskTemplate": {**moved["TaskTemplate"], "ContainerSpec": image}}
    assert rules.is_changed(his, spec, [NODE])
    back = rules.given_back(his, spec, [NODE])
    assert_same(back, {**spec, "TaskTemplate": {**spec["TaskTemplate"], "ContainerSpec": image}})


@given(documents, updates, orders)
def test_an_order_that_its_owner_chooses_in_the_middle_of_a_move_is_his(
    spec: Document, update: Document, order: str
) -> None:
    moved = {**rules.excluding(spec, NODE, order), "UpdateConfig": update}
    back = rules.given_back(moved, spec, [NODE])
    assert back["UpdateConfig"] == update
    assert rules.excluded(back) == rules.excluded(spec)


@given(documents, documents)
def test_a_rollback_goes_to_the_former_version_where_it_is_pinned_now(spec: Document, former: Document) -> None:
    now = rules.adopted(spec, OURS, NODE)
    back = rules.rolled_back(now, former)
    assert specs.pinned_to(back) == NODE
    assert not rules.is_changed(back, former, [])
    assert back["Labels"][DEPLOYMENT_LABEL] == "d"


def assert_same(back: Document, spec: Document) -> None:
    """All is as it was, but that what had no placement may have an empty one."""
    assert specs.with_placement(back) == specs.with_placement(spec)


def test_what_had_no_placement_keeps_an_empty_one() -> None:
    """Its containers were started with one, and an engine ended over a service that then had none."""
    spec = {"Name": "web", "TaskTemplate": {}, "Mode": {"Replicated": {}}}
    back = rules.given_back(rules.excluding(spec, NODE, rules.START_FIRST), spec, [NODE])
    assert back["TaskTemplate"] == {"Placement": {}}
    pinned = rules.adopted(spec, OURS, NODE)
    assert rules.released(pinned, spec, [])["TaskTemplate"] == rules.bare(pinned)["TaskTemplate"] == {"Placement": {}}


def without(spec: Document) -> Document:
    """All but the constraints and the way of updating."""
    template = dict(spec["TaskTemplate"])
    placement = {name: value for name, value in template.pop("Placement", {}).items() if name != "Constraints"}
    return {name: value for name, value in spec.items() if name != "UpdateConfig"} | {
        "TaskTemplate": [template, placement]
    }


def said(spec: Document) -> Document:
    """A document in which what places it is left out where it says nothing."""
    placement = {name: value for name, value in spec["TaskTemplate"].get("Placement", {}).items() if value}
    return {**spec, "TaskTemplate": {**spec["TaskTemplate"], "Placement": placement}}
