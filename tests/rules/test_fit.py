"""Whether Swarm would put a container on a node: each of its filters, and what holds of all of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import (
    EngineNode,
    EngineService,
    EngineTask,
    HostPort,
    NodeUse,
    Observation,
    Platform,
    Plugin,
    Requirements,
    Reserved,
)
from skyctl.domain.states import EndpointMode
from skyctl.rules import fit

GIB = 2**30
CORE = 10**9
NODE = EngineNode(
    "Node1",
    "North",
    is_up=True,
    availability="active",
    address="10.1.2.3",
    capacity=Capacity(4, 4096),
    labels={"zone": "A", "Zone": "b", "empty": ""},
    engine_labels={"disk": "fast"},
    platform=Platform("linux", "x86_64"),
    plugins=frozenset({Plugin("Network", "overlay"), Plugin("Volume", "local"), Plugin("Volume", "nfs:latest")}),
    generic={"gpu": 2},
)
EMPTY = NodeUse(4 * CORE, 4 * GIB, {"gpu": 2})


def task(number: int = 1, state: str = "running", wanted: str = "running", **facts: Any) -> EngineTask:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    return EngineTask(f"task{number}", facts.pop("node_id", NODE.id), state, wanted, "", None, "", at, **facts)


def service(name: str, *tasks: EngineTask, **asks: Any) -> EngineService:
    wants = Requirements(**asks)
    return EngineService(
        name, name, 1, "app:1", {}, None, 1, EndpointMode.VIP, Capacity(), tasks=tasks, requirements=wants
    )


def use_of(*services: EngineService) -> NodeUse:
    return fit.node_uses(Observation({NODE.id: NODE}, {each.id: each for each in services}))[NODE.id]


def why_not(node: EngineNode = NODE, use: NodeUse = EMPTY, **asks: Any) -> str:
    return fit.why_not(Requirements(**asks), "shop", node, use)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, ""),
        ({"is_up": False}, "its node is down"),
        ({"availability": "pause"}, "its node takes nothing new"),
        ({"availability": "drain"}, "its node takes nothing new"),
    ],
)
def test_the_node_has_to_be_ready(facts: dict[str, Any], reason: str) -> None:
    assert why_not(replace(NODE, **facts)) == reason


CONSTRAINTS = [
    ("node.id==Node1", True),
    ("node.id == node1", True),
    ("NODE.ID==NODE1", True),
    ("node.id!=node1", False),
    ("node.id!=node2", True),
    ("node.hostname==north", True),
    ("  node.hostname  !=  north  ", False),
    ("node.hostname==nort", False),
    ("node.hostname==n*", False),
    ("node.role==worker", True),
    ("node.role==manager", False),
    ("node.role!=manager", True),
    ("node.role==nonsense", False),
    ("node.ip==10.1.2.3", True),
    ("node.ip!=10.1.2.3", False),
    ("node.ip==10.1.2.4", False),
    ("node.ip==::ffff:10.1.2.3", True),
    ("node.ip==10.1.0.0/16", True),
    ("node.ip==10.1.2.9/24", True),
    ("node.ip!=10.1.0.0/16", False),
    ("node.ip!=10.2.0.0/16", True),
    ("node.ip==2001:db8::/32", False),
    ("node.ip!=2001:db8::/32", True),
    ("node.ip==north", False),
    ("node.ip!=north", False),
    ("node.ip!=10.2.0.0/33", False),
    ("node.ip!=10.2.0.0/255.255.0.0", False),
    ("node.platform.os==Linux", True),
    ("node.platform.arch==x86_64", True),
    ("node.platform.arch==amd64", False),
    ("node.labels.zone==a", True),
    ("Node.Labels.zone==a", True),
    ("node.labels.Zone==a", False),
    ("node.labels.Zone==B", True),
    ("node.labels.zone!=a", False),
    ("node.labels.disk==ssd", False),
    ("node.labels.disk!=ssd", True),
    ("engine.labels.disk==FAST", True),
    ("engine.labels.disk!=fast", False),
    ("engine.labels.zone==a", False),
    ("node.label.zone==a", False),
    ("node.label.zone!=a", False),
    ("node.labels.==a", False),
    ("zone!=a", False),
]


@pytest.mark.parametrize(("constraint", "holds"), CONSTRAINTS)
def test_the_constraints_have_to_hold(constraint: str, holds: bool) -> None:
    assert why_not(constraints=(constraint,)) == (
        "" if holds else f"scheduling constraints not satisfied: {constraint}"
    )


def test_every_constraint_has_to_hold() -> None:
    asks = ("node.role==worker", "node.labels.zone==c", "node.id==x")
    assert why_not(constraints=asks) == "scheduling constraints not satisfied: node.labels.zone==c"


def test_a_node_of_which_nothing_is_known_is_different_from_everything() -> None:
    bare = EngineNode("id", "", is_up=True, availability="active")
    for key in ("node.hostname", "node.ip", "node.platform.os", "node.labels.x", "engine.labels.x"):
        assert why_not(bare, constraints=(f"{key}==10.0.0.1",))
        assert not why_not(bare, constraints=(f"{key}!=10.0.0.1",))


@pytest.mark.parametrize(
    ("platforms", "fits"),
    [
        ([], True),
        ([("linux", "amd64")], True),
        ([("linux", "x86_64")], True),
        ([("", "amd64")], True),
        ([("linux", "")], True),
        ([("", "")], True),
        ([("linux", "arm64")], False),
        ([("windows", "amd64")], False),
        ([("linux", "arm64"), ("linux", "amd64")], True),
        ([("Linux", "amd64")], False),
    ],
)
def test_the_image_has_to_be_for_the_platform(platforms: list[tuple[str, str]], fits: bool) -> None:
    wanted = tuple(Platform(*each) for each in platforms)
    named = ", ".join("/".join(each) for each in platforms)
    assert why_not(platforms=wanted) == ("" if fits else f"unsupported platform: the image is for {named}")


@pytest.mark.parametrize(("of_node", "of_image"), [("aarch64", "arm64"), ("arm64", "aarch64"), ("armv7l", "armv7l")])
def test_architectures_have_several_names(of_node: str, of_image: str) -> None:
    node = replace(NODE, platform=Platform("linux", of_node))
    assert why_not(node, platforms=(Platform("linux", of_image),)) == ""
    assert why_not(node, platforms=(Platform("linux", "amd64"),))


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Plugin("Volume", "local"), ""),
        (Plugin("Volume", "nfs"), ""),
        (Plugin("Volume", "nfs:latest"), ""),
        (Plugin("Volume", "nfs:2"), "missing plugin: volume nfs:2"),
        (Plugin("Volume", "overlay"), "missing plugin: volume overlay"),
        (Plugin("Network", "overlay"), ""),
        (Plugin("Network", "weave"), "missing plugin: network weave"),
        (Plugin("Log", "gelf"), ""),
    ],
)
def test_the_plugins_have_to_be_there(plugin: Plugin, reason: str) -> None:
    assert why_not(plugins=(plugin,)) == reason


def test_a_node_that_names_its_plugins_for_logs_has_no_others_and_one_that_names_none_is_not_asked() -> None:
    node = replace(NODE, plugins=NODE.plugins | {Plugin("Log", "json-file")})
    assert why_not(node, plugins=(Plugin("Log", "gelf"),)) == "missing plugin: log gelf"
    assert why_not(replace(NODE, plugins=frozenset()), plugins=(Plugin("Volume", "weave"),)) == ""


@pytest.mark.parametrize(
    ("reserved", "lacking"),
    [
        (Reserved(), ""),
        (Reserved(4 * CORE, 4 * GIB, (("gpu", 2),)), ""),
        (Reserved(4 * CORE + 1), "4.000000001 CPU cores"),
        (Reserved(0, 5 * GIB), "5120 MiB of memory"),
        (Reserved(5 * CORE, 5 * GIB), "5 CPU cores and 5120 MiB of memory"),
        (Reserved(0, 0, (("gpu", 3),)), "3 gpu"),
        (Reserved(0, 0, (("fpga", 1),)), "1 fpga"),
        (Reserved(0, 0, (("fpga", 0),)), "0 fpga"),
    ],
)
def test_what_is_reserved_has_to_be_free(reserved: Reserved, lacking: str) -> None:
    assert why_not(reserved=reserved) == (f"insufficient resources: {lacking} cannot be reserved" if lacking else "")


def test_where_more_is_reserved_than_there_is_only_what_reserves_nothing_fits() -> None:
    over = NodeUse(-1, GIB)
    assert why_not(use=over) == ""
    assert why_not(use=over, reserved=Reserved(0, 1)) == "insufficient resources: 0 CPU cores cannot be reserved"


@pytest.mark.parametrize("state", ["assigned", "accepted", "preparing", "ready", "starting", "running"])
@pytest.mark.parametrize("wanted", ["ready", "running", "complete", "shutdown", "remove"])
def test_what_has_not_ended_is_counted_of_every_service(state: str, wanted: str) -> None:
    held = Reserved(CORE, GIB, (("gpu", 1),))
    there = service("other", task(state=state, wanted=wanted, reserved=held, host_ports=(HostPort(80),)))
    use = use_of(there, service("more", task(reserved=held)))
    assert (use.cpus, use.memory, use.generic) == (2 * CORE, 2 * GIB, {"gpu": 0})
    assert use.containers == {"other": int(wanted in ("ready", "running", "complete")), "more": 1}
    assert why_not(use=use, host_ports=(HostPort(80),)) == "host-mode port already in use: 80"


@pytest.mark.parametrize(
    "state", ["new", "pending", "complete", "shutdown", "failed", "rejected", "orphaned", "remove"]
)
def test_what_has_ended_or_has_no_node_yet_is_not(state: str) -> None:
    assert use_of(service("other", task(state=state, reserved=Reserved(CORE), host_ports=(HostPort(80),)))) == EMPTY


def test_what_is_elsewhere_is_not() -> None:
    there = service("other", task(node_id="Node2", reserved=Reserved(CORE)), task(2, node_id=None))
    assert use_of(there) == EMPTY


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ([], ""),
        ([HostPort(81)], ""),
        ([HostPort(80, "udp")], ""),
        ([HostPort(80)], "host-mode port already in use: 80"),
        ([HostPort(81), HostPort(80), HostPort(53, "udp")], "host-mode port already in use: 80, 53/udp"),
    ],
)
def test_the_ports_have_to_be_free(asked: list[HostPort], reason: str) -> None:
    use = use_of(service("other", task(host_ports=(HostPort(80), HostPort(53, "udp")))))
    assert why_not(use=use, host_ports=tuple(asked)) == reason


def test_the_ports_of_a_container_are_its_services_until_it_runs_and_its_own_then() -> None:
    published = (HostPort(80),)
    starting = service("other", task(state="starting"), host_ports=published)
    running = service("other", task(state="running"), host_ports=published)
    before = service("other", task(state="running", host_ports=(HostPort(79),)), host_ports=published)
    assert [use_of(each).host_ports for each in (starting, running, before)] == [{HostPort(80)}, set(), {HostPort(79)}]


@pytest.mark.parametrize(("there", "most", "fits"), [(0, 1, True), (1, 1, False), (1, 2, True), (5, 0, True)])
def test_no_more_of_its_own_may_be_there_than_it_says(there: int, most: int, fits: bool) -> None:
    others = service("other", task(9), task(8))
    use = use_of(service("shop", *(task(number) for number in range(there))), others)
    assert why_not(use=use, max_replicas=most) == ("" if fits else f"max replicas per node limit exceeded: {most}")


def test_the_first_reason_in_swarms_order_is_given() -> None:
    """Each is what is left once all that come before it are mended."""
    full = NodeUse(0, 0, {}, frozenset({HostPort(80)}), {"shop": 1})
    asks: dict[str, Any] = {
        "reserved": Reserved(CORE),
        "plugins": (Plugin("Volume", "weave"),),
        "constraints": ("node.id==x",),
        "platforms": (Platform("plan9"),),
        "host_ports": (HostPort(80),),
        "max_replicas": 1,
    }
    down, reasons = replace(NODE, is_up=False), []
    for mended in [None, *asks]:
        if mended:
            del asks[mended]
        else:
            reasons.append(why_not(down, full, **asks))
        reasons.append(why_not(NODE, full, **asks))
    assert [reason.split(":")[0] for reason in reasons] == [
        "its node is down",
        "insufficient resources",
        "missing plugin",
        "scheduling constraints not satisfied",
        "unsupported platform",
        "host-mode port already in use",
        "max replicas per node limit exceeded",
        "",
    ]


def test_a_move_takes_the_pin_away_and_nothing_else() -> None:
    kept = ("node.labels.zone==a", "node.id!=x", "node.hostname==y")
    asks = Requirements(constraints=("node.id==x", *kept, " Node.ID == y"), max_replicas=1)
    assert fit.unpinned(asks) == Requirements(constraints=kept, max_replicas=1)


AMOUNTS = st.integers(0, 3)
PORTS = st.lists(st.sampled_from([HostPort(80), HostPort(80, "udp"), HostPort(81)]), unique=True, max_size=2)
ASKS = st.builds(
    lambda cpus, memory, gpus, ports, most: Requirements(
        reserved=Reserved(cpus * CORE, memory * GIB, (("gpu", gpus),) if gpus else ()),
        host_ports=tuple(ports),
        max_replicas=most,
    ),
    AMOUNTS,
    AMOUNTS,
    AMOUNTS,
    PORTS,
    AMOUNTS,
)
OF_SERVICES = st.lists(st.tuples(st.sampled_from("abc"), ASKS), max_size=6)


def observed(containers: Sequence[tuple[str, Requirements]]) -> NodeUse:
    """The node with these containers, each of them of a service that asks something else by now."""
    tasks: dict[str, list[EngineTask]] = {}
    for number, (name, asks) in enumerate(containers):
        one = task(number, reserved=asks.reserved, host_ports=asks.host_ports)
        tasks.setdefault(name, []).append(one)
    return use_of(*(service(name, *of_service) for name, of_service in tasks.items()))


@given(OF_SERVICES)
def test_containers_that_are_added_one_by_one_leave_what_the_same_leave_when_they_are_seen(
    containers: list[tuple[str, Requirements]],
) -> None:
    use = EMPTY
    for name, asks in containers:
        use = fit.with_container(use, asks, name)
    assert use == observed(containers)


@given(OF_SERVICES, st.tuples(st.sampled_from("abc"), ASKS), ASKS)
def test_one_container_more_never_makes_room(
    containers: list[tuple[str, Requirements]], more: tuple[str, Requirements], asks: Requirements
) -> None:
    before, after = observed(containers), observed([*containers, more])
    if fit.why_not(asks, "a", NODE, before):
        assert fit.why_not(asks, "a", NODE, after)


@given(st.sampled_from(CONSTRAINTS), st.text("\t\n ", max_size=3), st.booleans())
def test_neither_space_nor_case_matters_but_in_names_of_labels(
    of_table: tuple[str, bool], space: str, upper: bool
) -> None:
    constraint, holds = of_table
    operator = "==" if "==" in constraint else "!="
    key, value = (part.strip() for part in constraint.split(operator))
    value = value.upper() if upper else value
    label = key.lower().find(".labels.") + len(".labels.")
    key = key if ".labels." not in key.lower() else key[:label].upper() + key[label:]
    changed = f"{space}{key}{space}{operator}{space}{value}{space}"
    assert (why_not(constraints=(changed,)) == "") is holds
